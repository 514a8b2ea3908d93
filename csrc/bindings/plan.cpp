// plan: the blocks of a plan, and how they are dealt out without a board; where parts of tensors
// lie.
#include "plan/plan.h"

#include "bindings/bindings.h"
#include "plan/byte_runs.h"

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

namespace {

ByteRuns make_byte_runs(std::uint64_t run_bytes,
                        const std::vector<std::pair<std::uint64_t, std::uint64_t>>& levels) {
  std::vector<RunLevel> made;
  made.reserve(levels.size());
  for (const auto& [count, stride_bytes] : levels) made.push_back({count, stride_bytes});
  return {run_bytes, std::move(made)};
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges_of(const ByteRuns& runs) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const ByteRange& range : runs.ranges()) ranges.emplace_back(range.offset, range.length);
  return ranges;
}

void bind_byte_runs(py::module_& module) {
  py::class_<ByteRuns>(module, "ByteRuns")
      .def(py::init(&make_byte_runs), py::arg("run_bytes"), py::arg("levels"))
      .def_property_readonly("packed_bytes", &ByteRuns::packed_bytes)
      .def_property_readonly("extent_bytes", &ByteRuns::extent_bytes)
      .def("joined", &ByteRuns::joined, py::arg("max_gap_bytes"))
      .def("ranges", &ranges_of);
}

}  // namespace

void bind_plan(py::module_& module) {
  module.attr("SHORT_GAP_BYTES") = kShortGapBytes;
  bind_byte_runs(module);
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
