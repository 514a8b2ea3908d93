// plan: the blocks of a plan, and how they are dealt out without a board.
#include "plan/plan.h"

#include "bindings/bindings.h"

namespace shardahead {

std::shared_ptr<const Plan> make_plan(const std::vector<std::uint64_t>& sizes, const Spans& spans,
                                      std::uint64_t block_bytes) {
  std::vector<PlannedFile> files(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    files[i].size_bytes = sizes[i];
    if (i >= spans.size()) continue;
    const auto& given = spans[i];
    if (!given) continue;
    std::vector<ByteRange> wanted;
    wanted.reserve(given->size());
    for (const auto& [offset, length] : *given) wanted.push_back({offset, length});
    files[i].spans = std::move(wanted);
  }
  PlanOptions options;
  options.block_bytes = block_bytes;
  return std::make_shared<const Plan>(std::move(files), options);
}

void bind_plan(py::module_& module) {
  using Blocks = std::vector<std::tuple<std::uint32_t, std::uint64_t, std::uint64_t>>;
  module.def(
      "plan_blocks",
      [](const std::vector<std::uint64_t>& sizes, const Spans& spans, std::uint64_t block_bytes) {
        const auto plan = make_plan(sizes, spans, block_bytes);
        Blocks blocks;
        for (const Block& block : plan->blocks()) {
          blocks.emplace_back(block.file, block.range.offset, block.range.length);
        }
        return blocks;
      },
      py::arg("sizes"), py::arg("spans"), py::arg("block_bytes"), NoGil());
  module.def(
      "plan_share",
      [](const std::vector<std::uint64_t>& sizes, const Spans& spans, std::uint64_t block_bytes,
         const std::string& partition, std::int64_t local_rank, std::int64_t local_size) {
        const Partition dealt = parse_name("partition", partition, "block, file",
                                           [](const auto& name) { return partition_from(name); });
        return share_of(*make_plan(sizes, spans, block_bytes), dealt, local_rank, local_size);
      },
      py::arg("sizes"), py::arg("spans"), py::arg("block_bytes"), py::arg("partition"),
      py::arg("local_rank"), py::arg("local_size"), NoGil());
}

}  // namespace shardahead
