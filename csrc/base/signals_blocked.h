// signals_blocked: keeps all signals from the threads that are started in its scope. Signals belong
// to the program, not to our threads, and a new thread inherits the mask of its creator. One
// thread.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace shardahead {

class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace shardahead
