// fork_support: children of a test that run a function and end. For the suites about fork.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include "test_support.h"

namespace shardahead::testing {

// -1 where it was killed by a signal: it hung or crashed.
inline int exit_status_of(pid_t child) {
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Runs `body` in a child and gives its exit status. The child leaves without destructors or exit
// handlers: those are the parent's.
template <typename Body>
int exit_status_of_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    ::_exit(body());
  }
  return exit_status_of(child);
}

}  // namespace shardahead::testing
