#include "filesystem.h"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <span>
#include <system_error>

namespace slowfs {
namespace {

// The source does not change: what the kernel knows, it may keep.
constexpr double kCacheSeconds = 3600;

Filesystem& self(fuse_req_t request) {
  return *static_cast<Filesystem*>(fuse_req_userdata(request));
}

Instant now() { return std::chrono::steady_clock::now(); }

// The way from libfuse's C callbacks into a member function; no exception gets past it.
template <auto Handler, typename... Arguments>
void dispatch(fuse_req_t request, Arguments... arguments) noexcept {
  try {
    (self(request).*Handler)(request, arguments...);
  } catch (const std::system_error& error) {
    self(request).fail(request, error.code().value());
  } catch (const std::bad_alloc&) {
    self(request).fail(request, ENOMEM);
  } catch (const std::exception&) {
    self(request).fail(request, EIO);
  }
}

template <typename... Arguments>
void refuse(fuse_req_t request, Arguments...) noexcept {
  fuse_reply_err(request, EROFS);
}

void reply_part(fuse_req_t request, const std::string& text, off_t offset, size_t size) {
  const auto begin = std::min(static_cast<std::size_t>(offset), text.size());
  fuse_reply_buf(request, text.data() + begin, std::min(size, text.size() - begin));
}

}  // namespace

Filesystem::Filesystem(const Options& options, FreeFrom* shared)
    : options_(options),
      tree_(options.source, ControlFolder::kFirstFree),
      filer_{LinkSchedule(options.bytes_per_s, options.round_trip, options.seek, shared),
             {},
             {},
             options.close},
      control_(options_, tree_, filer_) {}

const fuse_lowlevel_ops& Filesystem::operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops ops = {};
    ops.init = [](void* userdata, fuse_conn_info* connection) {
      static_cast<Filesystem*>(userdata)->init(connection);
    };
    ops.lookup = dispatch<&Filesystem::lookup>;
    ops.getattr = dispatch<&Filesystem::getattr>;
    ops.setattr = dispatch<&Filesystem::setattr>;
    ops.readlink = dispatch<&Filesystem::readlink>;
    ops.statfs = dispatch<&Filesystem::statfs>;
    ops.opendir = dispatch<&Filesystem::opendir>;
    ops.readdir = dispatch<&Filesystem::readdir>;
    ops.releasedir = dispatch<&Filesystem::release>;
    ops.open = dispatch<&Filesystem::open>;
    ops.read = dispatch<&Filesystem::read>;
    ops.write = dispatch<&Filesystem::write>;
    ops.flush = dispatch<&Filesystem::flush>;
    ops.release = dispatch<&Filesystem::release>;
    ops.mknod = refuse;
    ops.mkdir = refuse;
    ops.unlink = refuse;
    ops.rmdir = refuse;
    ops.symlink = refuse;
    ops.rename = refuse;
    ops.link = refuse;
    ops.create = refuse;
    return ops;
  }();
  return table;
}

void Filesystem::start(fuse_session* session) {
  session_ = session;
  queue_ = std::make_unique<ReplyQueue>();
}

void Filesystem::init(fuse_conn_info* connection) noexcept {
  const unsigned request_bytes = options_.request_kib * 1024;
  connection->max_read = request_bytes;
  // libfuse derives max_pages from max_write; without it READs end at 128 KiB.
  connection->max_write = std::max(request_bytes, 128U * 1024);
  connection->max_readahead = std::min(connection->max_readahead, options_.readahead_kib * 1024);
  connection->max_background = options_.max_background;
  connection->congestion_threshold = options_.congestion_threshold;
  connection->want |= connection->capable & FUSE_CAP_CACHE_SYMLINKS;
  is_initialized_ = true;
}

void Filesystem::lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry = {};
  entry.attr_timeout = kCacheSeconds;
  entry.entry_timeout = kCacheSeconds;
  if (parent == SourceTree::kRoot && name == ControlFolder::kName) {
    entry.ino = ControlFolder::kFolder;
  } else if (parent == ControlFolder::kFolder) {
    entry.ino = ControlFolder::child(name).value_or(0);
  } else {
    const std::string path = tree_.child_path(parent, name);
    if (tree_.exists(path)) entry.ino = tree_.inode_of(path);
  }
  // Inode 0 with a timeout: the kernel also remembers that there is no such name.
  if (entry.ino != 0) entry.attr = attributes(entry.ino);
  reply_metadata(request, entry.ino, [=] { fuse_reply_entry(request, &entry); });
}

void Filesystem::getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  const struct stat found = attributes(inode);
  reply_metadata(request, inode, [=] { fuse_reply_attr(request, &found, kCacheSeconds); });
}

void Filesystem::setattr(fuse_req_t request, fuse_ino_t inode, struct stat*, int, fuse_file_info*) {
  // `echo reset > control` truncates first.
  if (inode != ControlFolder::kControl) return fail(request, EROFS);
  const struct stat found = attributes(inode);
  fuse_reply_attr(request, &found, kCacheSeconds);
}

void Filesystem::readlink(fuse_req_t request, fuse_ino_t inode) {
  const std::string target = tree_.read_link(tree_.path(inode));
  reply_metadata(request, inode, [=] { fuse_reply_readlink(request, target.c_str()); });
}

void Filesystem::statfs(fuse_req_t request, fuse_ino_t) {
  struct statvfs found = {};
  if (fstatvfs(tree_.folder_fd(), &found) != 0) return fail(request, errno);
  fuse_reply_statfs(request, &found);
}

void Filesystem::opendir(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  const bool is_ours = ControlFolder::holds(inode);
  info->fh = keep(is_ours ? ControlFolder::list() : tree_.list(tree_.path(inode)));
  const fuse_file_info answer = *info;
  reply_metadata(request, inode, [=] { fuse_reply_open(request, &answer); });
}

void Filesystem::readdir(fuse_req_t request, fuse_ino_t, size_t size, off_t offset,
                         fuse_file_info* info) {
  const Listing& listing = std::get<Listing>(handles_.at(info->fh));
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto i = static_cast<std::size_t>(offset); i < listing.size(); ++i) {
    const DirectoryEntry& entry = listing[i];
    const std::size_t needed =
        fuse_add_direntry(request, buffer.data() + used, size - used, entry.name.c_str(),
                          &entry.attributes, static_cast<off_t>(i + 1));
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(request, buffer.data(), used);
}

void Filesystem::open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  if (ControlFolder::holds(inode)) return open_control(request, inode, info);
  if ((info->flags & O_ACCMODE) != O_RDONLY) return fail(request, EROFS);
  const std::string& path = tree_.path(inode);
  tree_.map(inode);
  info->keep_cache = options_.keep_cache;
  info->direct_io = options_.direct_io;
  // Close-to-open consistency, as a filer has it: who opens a file sees the size that it has now.
  // Attributes alone take no lock of the inode or of its pages, so this cannot wait for us.
  if (filer_.faults.knows(path)) fuse_lowlevel_notify_inval_inode(session_, inode, -1, 0);
  if (options_.empty_after_close) opens_.opened(inode);
  const fuse_file_info answer = *info;
  reply_metadata(request, inode, [=] { fuse_reply_open(request, &answer); });
}

void Filesystem::open_control(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  // The text is of the moment of opening, so that it is whole however it is read.
  if (inode == ControlFolder::kCounters) info->fh = keep(control_.counters_text());
  info->direct_io = 1;
  fuse_reply_open(request, info);
}

void Filesystem::read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                      fuse_file_info* info) {
  if (!ControlFolder::holds(inode)) {
    return read_file(request, inode, static_cast<std::uint64_t>(offset), size);
  }
  reply_part(request, std::get<std::string>(handles_.at(info->fh)), offset, size);
}

void Filesystem::read_file(fuse_req_t request, fuse_ino_t inode, std::uint64_t offset,
                           std::uint64_t size) {
  const MappedFile& file = tree_.map(inode);
  const std::span<const char> bytes = file.bytes();
  const FileFaults faults = filer_.faults.find(tree_.path(inode));
  const std::uint64_t end = std::min(offset + size, faults.size_seen(bytes.size()));
  const bool fails = faults.fails(offset, end);
  const std::uint64_t n_bytes = fails || end <= offset ? 0 : end - offset;
  const bool seeks = !filer_.link.continues_at({inode, offset});
  const Instant deadline = filer_.link.admit(now(), n_bytes, {inode, offset}) + faults.delay(end);
  // A source that fell out of memory is read while the reply waits for its turn.
  if (n_bytes > 0) file.will_need(offset, n_bytes);
  Counters& counters = filer_.counters;
  counters.request_arrived(seeks);
  queue_->push(deadline, [=, &counters](ReplyQueue::Fate fate) {
    if (fails || fate == ReplyQueue::Fate::abandon) {
      counters.request_failed();
      fuse_reply_err(request, EIO);
    } else {
      counters.request_succeeded(n_bytes);
      // Straight from the mapping: one copy, and less CPU per byte than splice or pread.
      fuse_reply_buf(request, n_bytes == 0 ? nullptr : bytes.data() + offset, n_bytes);
    }
    counters.reply_sent();
  });
}

void Filesystem::write(fuse_req_t request, fuse_ino_t inode, const char* text, size_t size, off_t,
                       fuse_file_info*) {
  if (inode != ControlFolder::kControl) return fail(request, EROFS);
  control_.execute({text, size});
  fuse_reply_write(request, size);
}

// Of every close(). Refused once, the kernel asks no more.
void Filesystem::flush(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  if (options_.close == Nanoseconds{0}) return fail(request, ENOSYS);
  if (ControlFolder::holds(inode)) return fail(request, 0);
  queue_->push(now() + filer_.close_delay, [=](ReplyQueue::Fate fate) {
    fuse_reply_err(request, fate == ReplyQueue::Fate::send ? 0 : EIO);
  });
}

void Filesystem::release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  // The kernel sends this only after the last READ of the handle was answered.
  handles_.erase(info->fh);
  fuse_reply_err(request, 0);
  const bool counted = options_.empty_after_close && !ControlFolder::holds(inode);
  if (counted && opens_.closed(inode)) empty_after_close(inode);
}

// No READ is on its way then, whose page the kernel would wait for here, and we for this.
void Filesystem::empty_after_close(fuse_ino_t inode) {
  queue_->push(now() + *options_.empty_after_close, [this, inode](ReplyQueue::Fate fate) {
    if (fate == ReplyQueue::Fate::abandon || opens_.is_open(inode)) return;
    fuse_lowlevel_notify_inval_inode(session_, inode, 0, 0);
  });
}

void Filesystem::fail(fuse_req_t request, int error) noexcept { fuse_reply_err(request, error); }

std::uint64_t Filesystem::keep(Handle handle) {
  handles_.emplace(next_handle_, std::move(handle));
  return next_handle_++;
}

struct stat Filesystem::attributes(fuse_ino_t inode) const {
  if (ControlFolder::holds(inode)) return ControlFolder::attributes(inode);
  const std::string& path = tree_.path(inode);
  struct stat found = tree_.attributes(path);
  if (S_ISREG(found.st_mode)) {
    const auto true_bytes = static_cast<std::uint64_t>(found.st_size);
    found.st_size = static_cast<off_t>(filer_.faults.find(path).size_seen(true_bytes));
    found.st_ino = options_.inode.value_or(found.st_ino);
  }
  return found;
}

// The control folder and the root above it answer at once.
void Filesystem::reply_metadata(fuse_req_t request, fuse_ino_t inode,
                                const std::function<void()>& send) {
  const bool is_free = inode == SourceTree::kRoot || ControlFolder::holds(inode);
  if (is_free || options_.metadata_round_trip == Nanoseconds{0}) return send();
  queue_->push(now() + options_.metadata_round_trip, [=](ReplyQueue::Fate fate) {
    fate == ReplyQueue::Fate::send ? send() : static_cast<void>(fuse_reply_err(request, EIO));
  });
}

}  // namespace slowfs
