// mount: the kernel's table of mounts with names that need escapes, what it makes of each mount,
// and this machine's own.
#include "node/mount.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "base/byte_range.h"
#include "base/error.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("mount");

namespace {

using Options = std::vector<std::string>;

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

Mount mount_with(const std::string& type, const Options& options = {}) {
  Mount mount;
  mount.type = type;
  mount.options = options;
  return mount;
}

MountLayer layer_of(MountClass mount_class) {
  MountLayer layer;
  layer.mount.mount_class = mount_class;
  return layer;
}

Options paths_of(const std::vector<MountLayer>& layers) {
  Options paths;
  for (const MountLayer& layer : layers) paths.push_back((layer.upper ? "^" : "") + layer.path);
  return paths;
}

// A /proc and a /sys in which the folder itself lies on the mount that `line` describes.
struct Fixture {
  explicit Fixture(const std::string& line) : root(folder.path("root")) {
    id = std::to_string(mount_id_of("/"));
    write(root + "/proc/self/mountinfo", id + " " + line);
  }
  void has(const std::string& path, const std::string& text) const { write(root + path, text); }
  [[nodiscard]] Mount mount() const { return mount_of("/", root); }

  TemporaryFolder folder;
  std::string root;
  std::string id;
};

}  // namespace

TEST_CASE("octal escapes are decoded, and nothing else") {
  CHECK(decode_octal("/a\\040b\\011c\\012d\\134e\\043f") == "/a b\tc\nd\\e#f");
  CHECK(decode_octal("\\04") == "\\04");
  CHECK(decode_octal("\\048") == "\\048");
  CHECK(decode_octal("\\400") == "\\400");
  CHECK(decode_octal("\\") == "\\");
}

TEST_CASE("lines of mountinfo: escapes, optional tags, an empty source") {
  const auto mounts = parse_mountinfo(
      "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
      "36 35 0:45 /sub /mnt/my\\040models ro,noatime master:1 propagate_from:2 - nfs4 "
      "filer:/a\\040b ro,vers=4.2,rsize=1048576\n"
      "37 35 0:46 / /mnt/empty rw - tmpfs  rw,size=1k\n"
      "38 35 0:47 / /mnt/comma rw - overlay overlay rw,lowerdir=/a\\054b:/c,upperdir=/d\n");
  REQUIRE(mounts.size() == 4);
  CHECK(mounts[0].id == 27);
  CHECK(mounts[0].device == DeviceNumber{254, 0});
  CHECK(mounts[0].type == "ext4");
  CHECK(mounts[0].options == Options{"rw", "relatime", "discard"});
  CHECK(mounts[1].mount_point == "/mnt/my models");
  CHECK(mounts[1].root == "/sub");
  CHECK(mounts[1].source == "filer:/a b");
  CHECK(mounts[1].options == Options{"ro", "noatime", "vers=4.2", "rsize=1048576"});
  CHECK(mounts[2].type == "tmpfs");
  CHECK(mounts[2].source.empty());
  CHECK(mounts[3].options == Options{"rw", "lowerdir=/a,b:/c", "upperdir=/d"});
}

TEST_CASE("lines of another form are left out") {
  for (const char* line :
       {"", "\n\n", "x 1 254:0 / / rw - ext4 /dev/vda rw", "27 1 254 / / rw - ext4 /dev/vda rw",
        "27 1 254:0 / / rw shared:1 ext4 /dev/vda rw", "27 1 254:0 / / rw - ext4",
        "27 1 254:x / / rw - ext4 /dev/vda rw", "27"}) {
    CAPTURE(line);
    CHECK(parse_mountinfo(line).empty());
  }
}

TEST_CASE("of the value of an option the last counts") {
  const Mount mount = mount_with("nfs", {"rw", "rsize=1", "rsize=2", "rsizes=3", "empty="});
  CHECK(option_value(mount, "rsize") == "2");
  CHECK(option_value(mount, "empty") == "");
  CHECK(option_value(mount, "rw") == std::nullopt);
  CHECK(option_value(mount, "size") == std::nullopt);
}

TEST_CASE("types that are known by name") {
  for (const char* type :
       {"nfs", "nfs4", "lustre", "ceph", "cifs", "smb3", "gpfs", "beegfs", "weka", "wekafs", "9p",
        "virtiofs", "glusterfs", "orangefs", "pvfs2", "daos", "afs"}) {
    CAPTURE(type);
    CHECK(mount_class_of(type) == MountClass::network);
  }
  for (const char* type : {"fuse", "fuseblk", "fuse.ceph", "fuse.sshfs", "fuse.slowfs"}) {
    CAPTURE(type);
    CHECK(mount_class_of(type) == MountClass::user_space);
  }
  for (const char* type : {"ext4", "xfs", "btrfs", "zfs", "f2fs", "vfat", "erofs"}) {
    CAPTURE(type);
    CHECK(mount_class_of(type) == MountClass::local);
  }
  for (const char* type : {"tmpfs", "ramfs"}) {
    CAPTURE(type);
    CHECK(mount_class_of(type) == MountClass::memory);
  }
  for (const char* type : {"", "autofs", "overlay", "newfs", "fusectl", "nfsd", "NFS"}) {
    CAPTURE(type);
    CHECK(mount_class_of(type) == MountClass::unknown);
  }
}

TEST_CASE("an overlay is as slow as its slowest layer") {
  using enum MountClass;
  CHECK(mount_class_of(std::vector<MountLayer>{}) == unknown);
  CHECK(mount_class_of({layer_of(local), layer_of(memory)}) == local);
  CHECK(mount_class_of({layer_of(local), layer_of(unknown)}) == unknown);
  CHECK(mount_class_of({layer_of(unknown), layer_of(user_space)}) == user_space);
  CHECK(mount_class_of({layer_of(user_space), layer_of(network)}) == network);
}

TEST_CASE("the request size is in the options, where it is known at all") {
  CHECK(request_bytes_of(mount_with("nfs4", {"rsize=1048576"})) == kMiB);
  CHECK(request_bytes_of(mount_with("cifs", {"rsize=4194304"})) == 4 * kMiB);
  CHECK(request_bytes_of(mount_with("fuse.x", {"max_read=131072"})) == 128 * kKiB);
  CHECK(request_bytes_of(mount_with("fuse.x", {"rsize=1"})) == std::nullopt);
  CHECK(request_bytes_of(mount_with("ext4", {"rsize=1"})) == std::nullopt);
  CHECK(request_bytes_of(mount_with("nfs4")) == std::nullopt);
  CHECK(request_bytes_of(mount_with("nfs4", {"rsize=x"})) == std::nullopt);
}

TEST_CASE("the layers of an overlay, from the top down") {
  const auto paths = [](const Options& options) { return paths_of(overlay_layers(options)); };
  CHECK(paths({"upperdir=", "lowerdir=", "lowerdir+="}).empty());
  CHECK(paths({"rw", "lowerdir=/a:/b c", "upperdir=/u,v", "workdir=/w"}) ==
        Options{"^/u,v", "/a", "/b c"});
  CHECK(paths({"lowerdir=/a\\:b:/c\\\\d::/data"}) == Options{"/a:b", "/c\\d", "/data"});
  CHECK(paths({"lowerdir+=/a:b", "lowerdir+=/c", "datadir+=/data"}) ==
        Options{"/a:b", "/c", "/data"});
  CHECK(paths({"lowerdir=", "rw"}).empty());
}

TEST_CASE("readahead by device number, of a partition that of its disk") {
  const Fixture nfs("1 0:53 / /m rw - nfs4 filer:/a rw,rsize=65536\n");
  nfs.has("/sys/class/bdi/0:53/read_ahead_kb", "128\n");
  CHECK(nfs.mount().mount_class == MountClass::network);
  CHECK(nfs.mount().read_ahead_bytes == 128 * kKiB);
  CHECK(nfs.mount().read_ahead_path == "/sys/class/bdi/0:53/read_ahead_kb");
  CHECK(nfs.mount().request_bytes == 64 * kKiB);

  const Fixture partition("1 8:1 / /m rw - xfs /dev/sda1 rw\n");
  partition.has("/sys/dev/block/8:1/partition", "1\n");
  partition.has("/sys/dev/block/queue/read_ahead_kb", "4096\n");
  CHECK(partition.mount().read_ahead_bytes == 4 * kMiB);

  const Fixture unknown("1 0:53 / /m rw - newfs none rw\n");
  CHECK(unknown.mount().read_ahead_bytes == std::nullopt);
  CHECK(unknown.mount().read_ahead_path.empty());
  CHECK(unknown.mount().mount_class == MountClass::unknown);
}

TEST_CASE("readahead under a name of its own, where it is the only one") {
  const Fixture btrfs("1 0:30 / /m rw - btrfs /dev/sda rw\n");
  btrfs.has("/sys/class/bdi/btrfs-1/read_ahead_kb", "4096\n");
  btrfs.has("/sys/class/bdi/btrfs-x/read_ahead_kb", "1\n");
  CHECK(btrfs.mount().read_ahead_path == "/sys/class/bdi/btrfs-1/read_ahead_kb");
  btrfs.has("/sys/class/bdi/btrfs-2/read_ahead_kb", "8192\n");
  CHECK(btrfs.mount().read_ahead_bytes == std::nullopt);
}

TEST_CASE("over-mounts and autofs: the id tells them apart, not the mount point") {
  const std::string above = "90 80 0:70 / /models rw - nfs filer:/models rw\n";
  const Fixture fixture("80 0:60 / /models rw - autofs /etc/auto.models rw,direct\n" + above);
  CHECK(fixture.mount().type == "autofs");
  CHECK(fixture.mount().mount_class == MountClass::unknown);
  CHECK(mount_with_id(90, fixture.root).type == "nfs");
}

TEST_CASE("a bind mount shows its root") {
  const Fixture fixture("1 254:0 /srv/models /models rw - ext4 /dev/vda rw\n");
  CHECK(fixture.mount().root == "/srv/models");
  CHECK(fixture.mount().mount_point == "/models");
}

TEST_CASE("an overlay with its layers: those that are seen from here, and those that are not") {
  const Fixture overlay("1 0:40 / /m rw - overlay overlay rw,lowerdir=/no/such:l/AB,upperdir=/\n");
  const Mount mount = overlay.mount();
  REQUIRE(mount.layers.size() == 3);
  CHECK(mount.layers[0].upper);
  CHECK(mount.layers[0].mount.type == "overlay");  // "/" itself, so it ends by the depth
  CHECK(mount.layers[1].mount.type.empty());
  CHECK(mount.layers[2].mount.type.empty());
  CHECK(mount.mount_class == MountClass::unknown);
}

TEST_CASE("an overlay over a file server is a network mount") {
  const TemporaryFolder lower;
  std::filesystem::create_directories(lower.path("l"));
  const std::string id = std::to_string(mount_id_of(lower.path("l")));
  const TemporaryFolder folder;
  const std::string root = folder.path("root");
  write(root + "/proc/self/mountinfo",
        "9000001 1 0:40 / /m rw - overlay overlay rw,lowerdir=" + lower.path("l") + "\n" + id +
            " 1 0:41 / / rw - nfs filer:/ rw,rsize=65536\n");
  const Mount mount = mount_with_id(9000001, root);
  REQUIRE(mount.layers.size() == 1);
  CHECK(mount.layers[0].mount.request_bytes == 64 * kKiB);
  CHECK(mount.mount_class == MountClass::network);
  CHECK(mount.request_bytes == std::nullopt);
}

TEST_CASE("an id that is not in the table, or no table, gives a mount without a type") {
  const Fixture fixture("1 0:40 / /m rw - ext4 none rw\n");
  CHECK(mount_with_id(9000002, fixture.root).id == 9000002);
  CHECK(mount_with_id(9000002, fixture.root).type.empty());
  CHECK(mount_of("/", fixture.folder.path("nothing")).type.empty());
}

TEST_CASE("of this machine") {
  const Mount proc = mount_of("/proc/self/status");
  CHECK(proc.type == "proc");
  CHECK(proc.mount_point == "/proc");
  const TemporaryFolder folder;
  const std::string link = folder.path("link to proc");
  std::filesystem::create_symlink("/proc/self", link);
  CHECK(mount_of(link).id == proc.id);
  CHECK(mount_of(folder.path(".")).id != proc.id);
  CHECK_FALSE(mount_of(folder.path(".")).type.empty());
}

TEST_CASE("what is not there is an error with its errno and path") {
  const TemporaryFolder folder;
  try {
    mount_of(folder.path("missing"));
    FAIL("no exception");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == ENOENT);
    CHECK(exception.error().path == folder.path("missing"));
  }
}

TEST_SUITE_END();
