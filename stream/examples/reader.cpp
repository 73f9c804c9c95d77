// Reads the feed and prints, for each message, every head's hottest cell and its value.
//
//   g++ -std=c++17 -O2 reader.cpp -lzmq -o reader      (Debian: libzmq3-dev, cppzmq-dev)
//   ./reader tcp://127.0.0.1:5557 COUNT [FILE.client|- [CAMERA]]
//
// No JSON is needed for the maps: their shape is in the prefix. FEED.md has the whole format.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
#include <zmq.hpp>

namespace {

constexpr std::size_t kPrefix = 88;
constexpr std::size_t kMessageMax = 4u << 20;

// Little-endian whatever this machine is.
std::uint64_t whole(const std::uint8_t* at, int bytes) {
  std::uint64_t value = 0;
  for (int i = bytes; i-- > 0;) value = value << 8 | at[i];
  return value;
}

float half(const std::uint8_t* at) {
  const auto bits = static_cast<std::uint32_t>(whole(at, 2));
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  if (exponent == 31) throw std::runtime_error("a value that is no number");
  const float size = exponent ? std::ldexp(1024.f + fraction, exponent - 25)
                              : std::ldexp(static_cast<float>(fraction), -24);
  return bits >> 15 ? -size : size;
}

void print(const std::uint8_t* data, std::size_t size) {
  if (size < kPrefix || size > kMessageMax || std::memcmp(data + 32, "DNAV", 4) != 0)
    throw std::runtime_error("this is not a denseav feed");
  if (data[36] != 1) throw std::runtime_error("a version this reader does not know");
  const std::uint64_t prefix = whole(data + 38, 2), header = whole(data + 40, 4);
  const std::uint64_t maps = whole(data + 44, 4), preview = whole(data + 48, 4);
  const std::uint64_t heads = whole(data + 52, 2), rows = whole(data + 54, 2);
  const std::uint64_t columns = whole(data + 56, 2), cells = rows * columns;
  if (prefix < kPrefix || prefix > 1024 || prefix + header + maps + preview != size ||
      header > 8192 || heads < 1 || heads > 16 || rows < 1 || rows > 1024 || columns < 1 ||
      columns > 1024 || maps != 2 * heads * cells)
    throw std::runtime_error("the lengths do not add up");
  std::printf("%llu", static_cast<unsigned long long>(whole(data + 64, 8)));
  for (std::uint64_t head = 0; head < heads; ++head) {
    std::vector<float> heat(cells);
    for (std::uint64_t i = 0; i < cells; ++i)
      heat[i] = half(data + prefix + header + 2 * (head * cells + i));
    const auto peak = std::max_element(heat.begin(), heat.end()) - heat.begin();
    std::printf("  row %d column %d: %.4f", static_cast<int>(peak / columns),
                static_cast<int>(peak % columns), heat[peak]);
  }
  std::printf("\n");
  std::fflush(stdout);
}

std::map<std::string, std::string> read_keys(const char* path) {
  std::ifstream file(path);
  std::map<std::string, std::string> keys;
  for (std::string line; std::getline(file, line);)
    if (const auto at = line.find(" = "); at != std::string::npos)
      keys[line.substr(0, at)] = line.substr(at + 3);
  if (keys.size() != 3) throw std::runtime_error(std::string("cannot read keys from ") + path);
  return keys;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: reader tcp://ADDRESS:PORT COUNT [FILE.client|- [CAMERA]]");
  zmq::context_t context;
  zmq::socket_t socket(context, zmq::socket_type::sub);
  // Every option before connecting: afterwards they have no effect. One frame a message makes
  // CONFLATE safe, and only the newest is ever kept.
  socket.set(zmq::sockopt::conflate, true);
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::rcvtimeo, 2000);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kMessageMax));
  // A topic has 32 bytes: all of them name one camera, a prefix any.
  std::string topic = "heat/";
  if (count > 4) (topic += arguments[4]).resize(32);
  socket.set(zmq::sockopt::subscribe, topic);
  if (count > 3 && std::strcmp(arguments[3], "-") != 0) {
    const auto keys = read_keys(arguments[3]);
    socket.set(zmq::sockopt::curve_serverkey, keys.at("server-public"));
    socket.set(zmq::sockopt::curve_publickey, keys.at("client-public"));
    socket.set(zmq::sockopt::curve_secretkey, keys.at("client-secret"));
  }
  socket.connect(arguments[1]);
  for (int left = std::atoi(arguments[2]); left > 0; --left) {
    zmq::message_t message;
    if (!socket.recv(message)) throw std::runtime_error("nothing came for 2 seconds");
    print(static_cast<const std::uint8_t*>(message.data()), message.size());
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "reader: %s\n", error.what());
  return 1;
}
