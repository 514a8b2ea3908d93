// failing_new: operator new of a test program, which fails for other threads than the one that asks
// for it. Any thread.
#pragma once

#include <cstdint>

namespace shardahead::testing {

enum class Fails { once, from_then_on };

// In the threads that are not this one: allocation number `number` from now on, 0 for the first,
// throws std::bad_alloc.
void fail_allocation(std::uint64_t number, Fails fails);
// No allocation fails any more. Whether one did.
bool stop_failing();

}  // namespace shardahead::testing
