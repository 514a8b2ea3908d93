#include "node/kernel_features.h"

#include <sys/mman.h>
#include <sys/utsname.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "base/proc_text.h"
#include "node/file_io.h"
#include "node/mount_number.h"

namespace shardahead {
namespace {

// Of no file at all: who has the call looks for the file first.
bool has_cachestat(FileIo& io) { return io.cachestat(-1, {0, 1}) == -EBADF; }

bool has_populate_read(FileIo& io) {
  void* page = ::mmap(nullptr, page_bytes(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  const bool has = io.fault_in(static_cast<std::byte*>(page), page_bytes()) == 0;
  ::munmap(page, page_bytes());
  return has;
}

bool has_process_vm_readv(FileIo& io) {
  const std::byte from{1};
  std::byte to{0};
  return io.copy_mapped(&from, 1, &to) == 1 && to == from;
}

// What stands in brackets: "always [madvise] never".
std::string chosen(const std::string& choices) {
  const std::size_t begin = choices.find('[');
  const std::size_t end = choices.find(']', begin);
  if (begin == std::string::npos || end == std::string::npos) return "";
  return choices.substr(begin + 1, end - begin - 1);
}

}  // namespace

KernelFeatures kernel_features() {
  FileIo& io = system_file_io();
  KernelFeatures found;
  utsname names{};
  if (::uname(&names) == 0) found.release = names.release;
  found.cachestat = has_cachestat(io);
  found.populate_read = has_populate_read(io);
  MountNumber number;
  found.mount_ids = mount_number("/", WantedNumber::unique, number) == 0;
  found.unique_mount_ids = found.mount_ids && number.unique;
  found.process_vm_readv = has_process_vm_readv(io);
  found.huge_pages = chosen(file_text("/sys/kernel/mm/transparent_hugepage/enabled").value_or(""));
  return found;
}

}  // namespace shardahead
