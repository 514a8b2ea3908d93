// noting: says on the board what of a file is resident, for who is about to read of it: the kernel
// reads beyond what it is asked for, and later no one can tell what was there. Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "board/claims.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "plan/plan.h"

namespace shardahead {

// Of this block, and of those behind it as far as reading of this one may reach.
void note_resident(FileIo& io, const Plan& plan, Claims& claims, const File& file,
                   std::uint32_t block);

// Has ranges of file number `index` on their way, noted before, and does not wait for them. It is
// advice: what fails is read in its turn.
void ask_for(FileIo& io, const Plan& plan, Claims& claims, const File& file, std::uint32_t index,
             const std::vector<ByteRange>& ranges);

}  // namespace shardahead
