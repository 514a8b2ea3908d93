// run: one prefetch of the measured files by the core itself, and what it cost. It neither makes
// anything cold or warm before nor judges the figures afterwards. One thread; the engine has its
// own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/report.h"
#include "matrix.h"
#include "node/file_table.h"
#include "request_counter.h"
#include "workload.h"

namespace shardahead::bench {

// SIGHUP, SIGINT and SIGTERM are remembered from here on, not obeyed, also by PID 1 of a container;
// what is ignored stays ignored. The second one ends the process at once, with 128 and its number,
// and so does the first after some seconds in which signals_are_over() was not called.
void remember_signals();
// 0 as long as none came.
int signal_that_came() noexcept;
// The bench has ended by itself: what is left is to print.
void signals_are_over() noexcept;

struct Run {
  double seconds = 0;      // from opening the files to the last thread's end
  double cpu_seconds = 0;  // of this process, user and system
  Report report;
  std::optional<Requests> requests;  // nothing where no one counts them
  bool interrupted = false;
  // Still open, as the run left them: on some mounts open() drops what is in the page cache.
  std::shared_ptr<FileTable> files;
};

// Throws IoException where a file cannot be opened.
Run run_once(const Workload& workload, const Setting& setting, const RequestCounters& counters);

// "pread '/models/a.safetensors' at offset 4096: Input/output error", as every command says it.
std::string describe(const IoError& error);

}  // namespace shardahead::bench
