// board_name: what the board of a load is called, so that processes which load the same meet
// without being introduced. Anyone may read the name: it holds no path, only a fingerprint; who
// knows path and metadata of the same files can tell from it that they are being loaded. Any
// thread.
#pragma once

#include <string>

#include "node/file_table.h"
#include "plan/plan.h"

namespace shardahead {

// Before the names of all boards of this user.
std::string board_prefix();

// Of user, boot, files (device, inode, size, mtime, path within the filesystem) and how they are
// cut. The path, because there are mounts that give several files one inode number; within the
// filesystem, because processes in separate containers may have mounted it elsewhere.
std::string board_name(const FileTable& files, const Plan& plan);

}  // namespace shardahead
