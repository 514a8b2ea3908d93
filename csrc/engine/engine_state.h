// engine_state: what an engine and its threads share. Each part has a header, and where it has a
// state a mutex of its own; here is only how they are put together. Internal to engine.cpp and
// worker.cpp. Any thread.
//
// Two mutexes are held at once in one place: the crew's, and then for a moment that of the tally or
// of the trial, when the claims are given up. Claims have mutexes of their own, taken last.
#pragma once

#include <memory>
#include <utility>

#include "base/process_mark.h"
#include "base/runtime.h"
#include "engine/ahead.h"
#include "engine/behind.h"
#include "engine/consumer.h"
#include "engine/crew.h"
#include "engine/engine.h"
#include "engine/lookout.h"
#include "engine/pace.h"
#include "engine/stall_watch.h"
#include "engine/tally.h"
#include "engine/trial.h"
#include "plan/request_cost.h"

namespace shardahead {

// What an engine was asked to do, and with what. Nothing of it changes.
struct Job {
  FileIo& io;
  Runtime& runtime;
  const std::shared_ptr<const Plan> plan;
  const std::shared_ptr<FileTable> files;
  const EngineOptions options;
  const ProcessMark process;
};

inline Follows whom_to_follow(const EngineOptions& options) {
  if (!options.consumer) return Follows::no_one;
  return options.consumer_releases ? Follows::releasing_consumer : Follows::holding_consumer;
}

// Owned by the engine and by each of its threads: the last one out takes it down.
struct EngineState {
  EngineState(Job the_job, std::unique_ptr<Claims> claims)
      : job(std::move(the_job)),
        tally(*job.plan, *claims, job.options.strategy),
        crew(job.runtime, std::move(claims), job.options.consumer,
             [this](const Claims& given_up) {
               tally.close(given_up);
               trial.close(given_up);
             }),
        trial(job.io, job.runtime, crew.cancelled()),
        stalls(job.runtime.now()),
        lookout(job.runtime),
        pace(job.runtime, *job.plan, job.options.rate_limit_bytes_per_s),
        ahead(job.runtime,
              WindowControl(job.options.window_bytes, job.plan->wanted_bytes(),
                            whom_to_follow(job.options)),
              job.options.memory_budget, job.options.consumer),
        behind(job.io, job.runtime, *job.plan, *job.files),
        consumer(job.io, job.runtime, *job.files, steps) {}

  const Job job;
  StepTable steps;
  RequestCost requests;
  Tally tally;
  Crew crew;
  Trial trial;
  StallWatch stalls;
  Lookout lookout;
  Pace pace;
  Ahead ahead;
  Behind behind;
  Consumer consumer;
};

}  // namespace shardahead
