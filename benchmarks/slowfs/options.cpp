#include "options.h"

#include <getopt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>

namespace slowfs {

const char kUsage[] =
    R"(Usage: slowfs [options] SOURCE MOUNTPOINT
Mounts the folder SOURCE read-only, as slow as a remote filer.

  --rate-mb-per-s N           rate of the one shared link in 10^6 bytes/s, 0: unlimited [300]
  --link FILE                 it is shared with all mounts that name this file
  --round-trip-ms X           time from a READ to the start of its transfer [1]
  --metadata-round-trip-ms X  the same for lookup, getattr and open [0]
  --close-ms X                the same for close(); 0: it is not told to the filer [0]
  --empty-after-close-ms X    its pages go so long after the last close() of a file [they stay]
  --seek-ms X                 for a READ that does not begin where the last one ended [0]
  --request-kib N             largest READ, a multiple of 4 up to 1024 [1024]
  --readahead-kib N           read_ahead_kb of the mount, a multiple of 4; above 128 needs
                              root [128]
  --max-background N          READs that the kernel sends ahead at once [64]
  --congestion-threshold N    beyond this many the kernel drops readahead [3/4 of the above]
  --keep-cache                pages outlive close() and open() [default]
  --no-keep-cache             every open() empties the page cache of the file
  --direct-io                 nothing is cached at all
  --same-inodes N             every file is said to have the inode number N
  --subtype NAME              the mount is of the type fuse.NAME [slowfs]
  --fault COMMAND             "eio PATH OFFSET", "bad PATH OFFSET BYTES",
                              "stall PATH OFFSET SECONDS" or
                              "truncate PATH BYTES"; may be repeated
  -f, --foreground            do not become a daemon
  -h, --help                  show this
  -V, --version               show the version

While mounted, MOUNTPOINT/.slowfs/counters tells what was served, and MOUNTPOINT/.slowfs/control
takes the fault commands, "clear", "reset", "rate N", "round-trip-ms X" and "close-ms X", one per
line.
)";

namespace {

enum LongOption : int {
  kRate = 256,
  kLink,
  kRoundTrip,
  kMetadataRoundTrip,
  kClose,
  kEmptyAfterClose,
  kSeek,
  kRequestKib,
  kReadaheadKib,
  kMaxBackground,
  kCongestionThreshold,
  kKeepCache,
  kNoKeepCache,
  kDirectIo,
  kSameInodes,
  kSubtype,
  kFault,
};

constexpr std::array<option, 21> kLongOptions{{
    {"rate-mb-per-s", required_argument, nullptr, kRate},
    {"link", required_argument, nullptr, kLink},
    {"round-trip-ms", required_argument, nullptr, kRoundTrip},
    {"metadata-round-trip-ms", required_argument, nullptr, kMetadataRoundTrip},
    {"close-ms", required_argument, nullptr, kClose},
    {"empty-after-close-ms", required_argument, nullptr, kEmptyAfterClose},
    {"seek-ms", required_argument, nullptr, kSeek},
    {"request-kib", required_argument, nullptr, kRequestKib},
    {"readahead-kib", required_argument, nullptr, kReadaheadKib},
    {"max-background", required_argument, nullptr, kMaxBackground},
    {"congestion-threshold", required_argument, nullptr, kCongestionThreshold},
    {"keep-cache", no_argument, nullptr, kKeepCache},
    {"no-keep-cache", no_argument, nullptr, kNoKeepCache},
    {"direct-io", no_argument, nullptr, kDirectIo},
    {"same-inodes", required_argument, nullptr, kSameInodes},
    {"subtype", required_argument, nullptr, kSubtype},
    {"fault", required_argument, nullptr, kFault},
    {"foreground", no_argument, nullptr, 'f'},
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {nullptr, 0, nullptr, 0},
}};

struct Limits {
  unsigned min;
  unsigned max;
  unsigned multiple;
};

[[noreturn]] void refuse(const char* name, const std::string& why) {
  throw UsageError("--" + std::string(name) + " " + optarg + ": " + why);
}

unsigned count_argument(const char* name, Limits limits) {
  const auto value = parse_count(optarg);
  if (!value || *value < limits.min || *value > limits.max || *value % limits.multiple != 0) {
    refuse(name, "must be a whole number from " + std::to_string(limits.min) + " to " +
                     std::to_string(limits.max) + ", in steps of " +
                     std::to_string(limits.multiple));
  }
  return static_cast<unsigned>(*value);
}

Nanoseconds milliseconds_argument(const char* name) {
  const auto value = parse_milliseconds(optarg);
  if (!value) refuse(name, "must be a number of milliseconds from 0 to 10^9");
  return *value;
}

std::string subtype_argument(const char* name) {
  const std::string value = optarg;
  const auto is_plain = [](unsigned char each) {
    return std::isalnum(each) != 0 || each == '-' || each == '_';
  };
  if (value.empty() || !std::all_of(value.begin(), value.end(), is_plain)) {
    refuse(name, "must be of letters, digits, - and _");  // a comma would end the mount option
  }
  return value;
}

Command fault_argument(const char* name) {
  const auto command = parse_command(optarg);
  if (!command ||
      !(std::holds_alternative<AddEio>(*command) || std::holds_alternative<AddBad>(*command) ||
        std::holds_alternative<AddStall>(*command) ||
        std::holds_alternative<AddTruncate>(*command))) {
    refuse(name,
           "is not one of: eio PATH OFFSET, bad PATH OFFSET BYTES, stall PATH OFFSET SECONDS, "
           "truncate PATH BYTES");
  }
  return *command;
}

void apply(Options& options, int code, const char* name) {
  // The protocol holds max_background and the threshold in 16 bits.
  constexpr Limits kQueue{1, std::numeric_limits<std::uint16_t>::max(), 1};
  switch (code) {
    case kRate: {
      const auto bytes_per_s = parse_megabytes(optarg);
      if (!bytes_per_s) refuse(name, "must be a number of 10^6 bytes/s from 0 to 10^6");
      options.bytes_per_s = *bytes_per_s;
      break;
    }
    case kLink: options.link = optarg; break;
    case kRoundTrip: options.round_trip = milliseconds_argument(name); break;
    case kMetadataRoundTrip: options.metadata_round_trip = milliseconds_argument(name); break;
    case kClose: options.close = milliseconds_argument(name); break;
    case kEmptyAfterClose: options.empty_after_close = milliseconds_argument(name); break;
    case kSeek: options.seek = milliseconds_argument(name); break;
    case kRequestKib: options.request_kib = count_argument(name, {4, 1024, 4}); break;
    case kReadaheadKib: options.readahead_kib = count_argument(name, {0, 1 << 20, 4}); break;
    case kMaxBackground: options.max_background = count_argument(name, kQueue); break;
    case kCongestionThreshold: options.congestion_threshold = count_argument(name, kQueue); break;
    case kKeepCache: options.keep_cache = true; break;
    case kNoKeepCache: options.keep_cache = false; break;
    case kDirectIo: options.direct_io = true; break;
    case kSameInodes:
      options.inode = parse_count(optarg);
      if (!options.inode) refuse(name, "must be a whole number");
      break;
    case kSubtype: options.subtype = subtype_argument(name); break;
    case kFault: options.faults.push_back(fault_argument(name)); break;
    case 'f': options.foreground = true; break;
    case 'h': options.show_help = true; break;
    case 'V': options.show_version = true; break;
    default: break;
  }
}

// getopt has just refused the word before optind, or a letter within it.
[[noreturn]] void refuse_unknown(int code, char** argv) {
  const std::string word = argv[optind - 1];
  const bool is_long = word.starts_with("--");
  const std::string name = is_long || optopt == 0 ? word : std::string("-") + char(optopt);
  if (code == ':') throw UsageError(name + ": needs a value");
  throw UsageError(name + ": no such option, or not one that takes this value");
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  int index = 0;
  // The leading colon: getopt prints nothing and tells a missing value from an unknown option.
  for (int code = 0; (code = getopt_long(argc, argv, ":fhV", kLongOptions.data(), &index)) != -1;) {
    if (code == '?' || code == ':') refuse_unknown(code, argv);
    apply(options, code, kLongOptions[static_cast<std::size_t>(index)].name);
  }
  if (options.show_help || options.show_version) return options;
  if (argc - optind != 2) {
    throw UsageError("SOURCE and MOUNTPOINT are needed, " + std::to_string(argc - optind) +
                     " given");
  }
  // Where the disk behind it stands is known to the process alone that has read there.
  if (!options.link.empty() && options.seek != Nanoseconds{0}) {
    throw UsageError("--link " + options.link + ": not with --seek-ms");
  }
  options.source = argv[optind];
  options.mountpoint = argv[optind + 1];
  if (options.congestion_threshold == 0) {
    options.congestion_threshold = std::max(1U, options.max_background * 3 / 4);
  }
  return options;
}

}  // namespace slowfs
