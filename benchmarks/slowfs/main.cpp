// main: mounts slowfs, becomes a daemon, reads requests until the mount or the process is told to
// end. Knows nothing of files or rates. The main thread is the one that handles every request.
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <system_error>

#include "filesystem.h"
#include "options.h"
#include "shared_link.h"

namespace slowfs {
namespace {

struct DestroySession {
  void operator()(fuse_session* session) const noexcept { fuse_session_destroy(session); }
};
using Session = std::unique_ptr<fuse_session, DestroySession>;

// Unmounts however the owner's scope ends. After this the kernel fails what is still waiting.
class Mount {
 public:
  Mount(fuse_session* session, const std::string& mountpoint) : session_(session) {
    if (fuse_session_mount(session, mountpoint.c_str()) != 0) {
      throw std::runtime_error("cannot mount on " + mountpoint);
    }
  }
  ~Mount() { fuse_session_unmount(session_); }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

 private:
  fuse_session* session_;
};

class RequestBuffer {
 public:
  RequestBuffer() = default;
  ~RequestBuffer() { std::free(buffer_.mem); }  // libfuse allocates it
  RequestBuffer(const RequestBuffer&) = delete;
  RequestBuffer& operator=(const RequestBuffer&) = delete;

  // What fuse_session_receive_buf returns.
  int receive_and_process(fuse_session* session) {
    const int result = fuse_session_receive_buf(session, &buffer_);
    if (result > 0) fuse_session_process_buf(session, &buffer_);
    return result;
  }

 private:
  fuse_buf buffer_ = {};
};

// Root mounts without it; with it, a helper process unmounts even if this one is killed.
bool has_fusermount() {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/fusermount3").c_str(), X_OK) == 0) return true;
  }
  return false;
}

Session make_session(const Options& options, Filesystem& filesystem) {
  std::string mount_options =
      "fsname=slowfs,subtype=" + options.subtype +
      ",default_permissions,max_read=" + std::to_string(options.request_kib * 1024);
  if (geteuid() == 0) mount_options += ",allow_other";
  if (has_fusermount()) mount_options += ",auto_unmount";
  std::string program = "slowfs";
  std::string flag = "-o";
  char* words[] = {program.data(), flag.data(), mount_options.data(), nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(3, words);
  Session session(fuse_session_new(&arguments, &Filesystem::operations(), sizeof(fuse_lowlevel_ops),
                                   &filesystem));
  fuse_opt_free_args(&arguments);
  if (!session) throw std::runtime_error("cannot create a FUSE session");
  return session;
}

// The kernel accepts at most 128 KiB from the server itself; the rest is a setting of the mount's
// backing device, which only root may change.
void set_readahead(const std::string& mountpoint, unsigned readahead_kib) {
  struct statx found = {};
  // Nothing but the device, and that from memory: nobody answers GETATTR yet.
  if (statx(AT_FDCWD, mountpoint.c_str(), AT_STATX_DONT_SYNC, 0, &found) != 0) {
    throw std::system_error(errno, std::generic_category(), "statx " + mountpoint);
  }
  const std::string path = "/sys/class/bdi/" + std::to_string(found.stx_dev_major) + ":" +
                           std::to_string(found.stx_dev_minor) + "/read_ahead_kb";
  unsigned current_kib = 0;
  if (std::ifstream(path) >> current_kib && current_kib == readahead_kib) return;
  std::ofstream(path) << readahead_kib << std::flush;
  if (std::ifstream(path) >> current_kib && current_kib == readahead_kib) return;
  throw std::runtime_error("--readahead-kib " + std::to_string(readahead_kib) + ": cannot write " +
                           path + " (above 128 this needs root)");
}

sigset_t block_ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

void serve(fuse_session* session, const sigset_t& signals) {
  const UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC));
  const int fuse_fd = fuse_session_fd(session);
  // A request that is withdrawn between poll and read must not leave us deaf to signals.
  fcntl(fuse_fd, F_SETFL, fcntl(fuse_fd, F_GETFL) | O_NONBLOCK);
  RequestBuffer buffer;
  while (!fuse_session_exited(session)) {
    const int result = buffer.receive_and_process(session);
    if (result > 0 || result == -EINTR) continue;
    if (result != -EAGAIN) return;
    pollfd watched[] = {{fuse_fd, POLLIN, 0}, {signal_fd.get(), POLLIN, 0}};
    if (poll(watched, 2, -1) > 0 && watched[1].revents != 0) return;
  }
}

std::string canonical_folder(const std::string& name, const std::string& path) {
  std::error_code error;
  const std::string folder = std::filesystem::canonical(path, error);
  if (error) throw UsageError(name + " " + path + ": " + error.message());
  if (!std::filesystem::is_directory(folder)) throw UsageError(name + " " + path + ": no folder");
  return folder;
}

// A daemon changes its folder, so both paths become absolute.
void check_folders(Options& options) {
  options.source = canonical_folder("SOURCE", options.source);
  options.mountpoint = canonical_folder("MOUNTPOINT", options.mountpoint);
  const auto relative =
      std::filesystem::path(options.mountpoint).lexically_relative(options.source);
  // We would wait for ourselves as soon as anyone looks there.
  if (*relative.begin() != "..") {
    throw UsageError("MOUNTPOINT " + options.mountpoint + ": lies inside of SOURCE");
  }
}

// Nothing where the link is this mount's own.
std::unique_ptr<SharedLink> shared_link_of(const Options& options) {
  if (options.link.empty()) return nullptr;
  try {
    return std::make_unique<SharedLink>(options.link);
  } catch (const std::system_error& error) {
    throw UsageError(std::string("--link ") + error.what());
  }
}

void set_faults(Filesystem& filesystem, const Options& options) {
  try {
    filesystem.execute(options.faults);
  } catch (const std::system_error& error) {
    throw UsageError(std::string("--fault: ") + error.what());
  }
}

// The kernel sends INIT first, as soon as there is a mount.
void answer_init(fuse_session* session, const Filesystem& filesystem) {
  RequestBuffer buffer;
  while (!filesystem.is_initialized()) {
    const int result = buffer.receive_and_process(session);
    if (result <= 0 && result != -EINTR) {
      throw std::runtime_error("the kernel closed the connection");
    }
  }
}

int run(Options options) {
  check_folders(options);
  const sigset_t signals = block_ending_signals();
  const auto link = shared_link_of(options);
  Filesystem filesystem(options, link ? &link->free_from() : nullptr);
  set_faults(filesystem, options);
  const Session session = make_session(options, filesystem);
  const Mount mount(session.get(), options.mountpoint);
  answer_init(session.get(), filesystem);
  set_readahead(options.mountpoint, options.readahead_kib);
  if (fuse_daemonize(options.foreground ? 1 : 0) != 0) {
    throw std::runtime_error("cannot become a daemon");
  }
  filesystem.start(session.get());
  serve(session.get(), signals);
  filesystem.stop();
  return 0;
}

int main_or_throw(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  if (options.show_help) {
    std::cout << kUsage;
    return 0;
  }
  if (options.show_version) {
    std::cout << "slowfs " SLOWFS_VERSION ", libfuse " << fuse_pkgversion() << '\n';
    return 0;
  }
  return run(options);
}

}  // namespace
}  // namespace slowfs

int main(int argc, char** argv) {
  try {
    return slowfs::main_or_throw(argc, argv);
  } catch (const slowfs::UsageError& error) {
    std::cerr << "slowfs: " << error.what() << "\nTry 'slowfs --help'.\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "slowfs: " << error.what() << '\n';
    return 1;
  }
}
