// Rays in groups of sixteen that lie close together, so that they read the same texels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "simd.h"

namespace portrait4d {

constexpr int kPacketSide = 4;  // pixels
constexpr int kBlockSide = 4;  // packets
static_assert(kPacketSide * kPacketSide == kLanes);

// Order of rays: square pictures by packets of neighbours, in blocks where they fit; others as they come.
struct Packets {
  int64_t rays, width, side;  // width of a square picture in rays and in packets, or 0

  explicit Packets(int64_t count) : rays(count), width(std::llround(std::sqrt(static_cast<double>(count)))) {
    if (width * width != rays) width = 0;
    side = (width + kPacketSide - 1) / kPacketSide;
  }

  int64_t count() const { return width > 0 ? side * side : (rays + kLanes - 1) / kLanes; }

  // Fills the rays of a packet, and returns how many there are.
  int fill(int64_t packet, int64_t* result) const {
    int count = 0;
    if (width == 0) {
      for (int64_t ray = packet * kLanes; ray < std::min(rays, (packet + 1) * kLanes); ++ray) result[count++] = ray;
      return count;
    }
    const int64_t place = side % kBlockSide == 0 ? place_in_blocks(packet) : packet;
    const int64_t top = place / side * kPacketSide, left = place % side * kPacketSide;
    for (int64_t y = top; y < std::min(width, top + kPacketSide); ++y)
      for (int64_t x = left; x < std::min(width, left + kPacketSide); ++x) result[count++] = y * width + x;
    return count;
  }

  // Neighbouring packets read the same texels, too.
  int64_t place_in_blocks(int64_t packet) const {
    const int64_t block = packet / (kBlockSide * kBlockSide), within = packet % (kBlockSide * kBlockSide);
    const int64_t row = block / (side / kBlockSide) * kBlockSide + within / kBlockSide;
    return row * side + block % (side / kBlockSide) * kBlockSide + within % kBlockSide;
  }
};

}  // namespace portrait4d
