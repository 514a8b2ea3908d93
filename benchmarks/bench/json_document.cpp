#include "json_document.h"

#include <nlohmann/json.hpp>

#include "base/build.h"
#include "request_counter.h"
#include "units.h"

namespace shardahead::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "shardahead/bench/1";

// A byte 0xNN of what is not UTF-8 is "\udcNN" in the document, as Python has it: half of a
// surrogate pair. The library writes whole pairs alone, and before the document is whole the byte
// is the character of the private use area whose pair is \udbff\udcNN.
constexpr std::string_view kPair = "\\udbff\\udc";
constexpr std::string_view kHalf = "\\udc";
constexpr std::string_view kByteCharacter = "\xf4\x8f";  // how all of these begin

bool is_utf8(const std::string& text) {
  try {
    Json(text).dump();
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

// A path, or what has one in it. Where something of it is not UTF-8, all that is not ASCII is given
// as bytes; and where it has such a character itself.
std::string json_path(const std::string& path) {
  if (is_utf8(path) && path.find(kByteCharacter) == std::string::npos) return path;
  std::string characters;
  for (const char byte : path) {
    const std::uint32_t value = static_cast<unsigned char>(byte);
    if (value < 0x80U) {
      characters += byte;
      continue;
    }
    characters += kByteCharacter;
    characters += static_cast<char>(0xb0U | (value >> 6U));
    characters += static_cast<char>(0x80U | (value & 0x3fU));
  }
  return characters;
}

std::string with_bytes(std::string document) {
  for (std::size_t at = document.find(kPair); at != std::string::npos;
       at = document.find(kPair, at + kHalf.size())) {
    document.replace(at, kPair.size(), kHalf);
  }
  return document;
}

template <typename Value>
Json or_null(const std::optional<Value>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json json_of(const std::optional<Spread>& spread) {
  if (!spread) return nullptr;
  return {{"median", spread->median}, {"least", spread->least}, {"most", spread->most}};
}

Json json_of(const Node& node) {
  return {{"kernel", node.kernel},
          {"cpu_model", node.cpu_model},
          {"cpus", node.cpus},
          {"usable_cpus", node.usable_cpus},
          {"memory_bytes", node.memory_bytes}};
}

Json json_of(const MountUsed& used) {
  const Mount& mount = used.mount;
  const CounterKind kind = RequestCounter(mount).kind();
  return {{"id", mount.id},
          {"type", mount.type},
          {"source", json_path(mount.source)},
          {"mount_point", json_path(mount.mount_point)},
          {"options", joined(mount.options, ",")},
          {"device", to_string(mount.device)},
          {"read_ahead_kib", or_null(used.read_ahead_kib())},
          {"requests_counted_by", kind == CounterKind::none ? Json(nullptr) : to_string(kind)},
          {"files", used.files},
          {"measured_bytes", used.measured_bytes}};
}

Json json_of(const Options& options) {
  Json strategies = Json::array();
  Json states = Json::array();
  for (const Strategy strategy : options.strategies) strategies.push_back(to_string(strategy));
  for (const CacheState state : options.states) states.push_back(to_string(state));
  Json paths = Json::array();
  for (const std::string& path : options.paths) paths.push_back(json_path(path));
  return {{"strategies", strategies},
          {"threads", options.threads},
          {"block_bytes", options.block_bytes},
          {"states", states},
          {"repeats", options.repeats},
          {"limit_bytes", options.limit_bytes},
          {"paths", paths}};
}

Json json_of(const IoError& error) {
  return {{"errno", error.errno_value},
          {"message", error.message()},
          {"operation", error.operation},
          {"path", json_path(error.path)},
          {"offset", error.offset}};
}

Json json_of(const Repeat& repeat) {
  Json json{{"repeat", repeat.number},
            {"outcome", to_string(repeat.outcome)},
            {"resident_before_bytes", or_null(repeat.resident_before_bytes)}};
  if (repeat.outcome != RepeatOutcome::measured) {
    json["reason"] = repeat.reason;
    json["error_count"] = repeat.error_count;
    json["errors"] = Json::array();
    for (const IoError& error : repeat.errors) json["errors"].push_back(json_of(error));
    return json;
  }
  json["seconds"] = repeat.seconds;
  json["cpu_seconds"] = repeat.cpu_seconds;
  json["worker_cpu_seconds"] = repeat.worker_cpu_seconds;
  json["resident_after_bytes"] = or_null(repeat.resident_after_bytes);
  json["lost_bytes"] = repeat.lost_bytes;
  json["step_bytes"] = or_null(repeat.step_bytes);
  json["step_source"] = or_null(repeat.step_source);
  json["strategy_used"] = or_null(repeat.strategy_used);
  json["read_requests"] = repeat.requests ? Json(repeat.requests->reads) : Json(nullptr);
  json["wire_bytes"] = repeat.requests ? Json(repeat.requests->wire_bytes) : Json(nullptr);
  return json;
}

Json json_of(const CellSummary& cell, const CellResult& result) {
  Json json{{"strategy", to_string(cell.cell.setting.strategy)},
            {"threads", cell.cell.setting.threads},
            {"block_bytes", cell.cell.setting.block_bytes},
            {"state", to_string(cell.cell.state)},
            {"counted_repeats", cell.counted},
            {"megabytes_per_second", json_of(cell.megabytes_per_second)},
            {"seconds", json_of(cell.seconds)},
            {"cpu_seconds_per_gib", json_of(cell.cpu_seconds_per_gib)},
            {"worker_cpu_seconds_per_gib", json_of(cell.worker_cpu_seconds_per_gib)},
            {"resident_after_share", json_of(cell.resident_after_share)},
            {"lost_bytes", json_of(cell.lost_bytes)},
            {"step_bytes", json_of(cell.step_bytes)},
            {"read_requests", json_of(cell.read_requests)},
            {"wire_bytes", json_of(cell.wire_bytes)},
            {"repeats", Json::array()}};
  for (const Repeat& repeat : result.repeats) json["repeats"].push_back(json_of(repeat));
  return json;
}

Json json_of(const Recommendation& recommendation, const Options& options) {
  Json json{{"advice", to_string(recommendation.advice)}, {"reason", recommendation.reason}};
  if (const auto& setting = recommendation.setting) {
    json["strategy"] = to_string(setting->strategy);
    json["threads"] = setting->threads;
    json["block_bytes"] = setting->block_bytes;
    json["environment"] = as_environment(*setting);
    json["command"] = json_path(as_command(*setting, words_of(options)));
  }
  return json;
}

}  // namespace

std::string json_of(const Bench& bench) {
  const Workload& workload = bench.workload;
  Json json{{"schema", kSchema},
            {"version", version()},
            {"compiler", compiler()},
            {"complete", bench.complete()},
            {"interrupted", bench.signal != 0},
            {"node", json_of(bench.node)},
            {"mounts", Json::array()},
            {"measured_bytes", workload.measured_bytes},
            {"total_bytes", workload.total_bytes},
            {"total_files", workload.total_files},
            {"files", Json::array()},
            {"options", json_of(bench.options)},
            {"cells", Json::array()},
            {"recommendation", json_of(bench.recommendation, bench.options)}};
  for (const MountUsed& used : bench.mounts) json["mounts"].push_back(json_of(used));
  for (const MeasuredFile& file : workload.files) {
    json["files"].push_back({{"path", json_path(file.path)},
                             {"size_bytes", file.size_bytes},
                             {"measured_bytes", file.measured_bytes}});
  }
  for (std::size_t i = 0; i < bench.summaries.size(); ++i) {
    json["cells"].push_back(json_of(bench.summaries[i], bench.results[i]));
  }
  return with_bytes(json.dump(-1, ' ', true, Json::error_handler_t::replace));
}

}  // namespace shardahead::bench
