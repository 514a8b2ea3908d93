// kernel_features: what this kernel, or the filter of its system calls, allows of what is used here
// where it is there. Asked by calls that change nothing; never of a file of anyone. Any thread.
#pragma once

#include <string>

namespace shardahead {

struct KernelFeatures {
  std::string release;            // as uname(2) has it
  bool cachestat = false;         // what is resident, without a mapping; Linux 6.5
  bool populate_read = false;     // MADV_POPULATE_READ, of strategy "populate"; Linux 5.14
  bool mount_ids = false;         // STATX_MNT_ID: on which mount a file lies; Linux 5.8
  bool unique_mount_ids = false;  // which no other mount gets later; Linux 6.8
  bool process_vm_readv = false;  // copies from mappings whose pages may be unreadable
  // Of mappings of files in huge pages: "always", "madvise", "never", or "" where none are told of.
  std::string huge_pages;
};

KernelFeatures kernel_features();

}  // namespace shardahead
