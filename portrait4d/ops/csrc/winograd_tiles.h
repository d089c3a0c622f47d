// The tiles of ROWS x COLUMNS results that Winograd's convolutions cut pictures into, and the pixels around each.
#pragma once

#include <cstdint>

#include "dense_ops.h"

namespace portrait4d {

template <int ROWS, int COLUMNS>
struct Tiles {
  struct Place {
    int64_t picture, top, left;
  };

  const Convolution& job;
  const int64_t columns, rows;

  explicit Tiles(const Convolution& convolution)
      : job(convolution),
        columns((job.width + COLUMNS - 1) / COLUMNS),
        rows((job.height + ROWS - 1) / ROWS) {}

  int64_t count() const { return job.batch * rows * columns; }

  Place place(int64_t tile) const {
    return {tile / (rows * columns), tile / columns % rows * ROWS, tile % columns * COLUMNS};
  }

  // The number, among all pixels, of one at a row and column of a tile.
  int64_t pixel(const Place& at, int64_t row, int64_t column) const {
    return (at.picture * job.height + at.top + row) * job.width + at.left + column;
  }

  // Finds the (ROWS + 2) x (COLUMNS + 2) pixels that a tile depends on; `nothing` stands for those outside.
  template <class Number>
  void find_pixels(const Place& at, const Number* picture, const Number* nothing, const Number** pixels) const {
    for (int i = 0; i < ROWS + 2; ++i)
      for (int j = 0; j < COLUMNS + 2; ++j) {
        const int64_t y = at.top + i - 1, x = at.left + j - 1;
        const bool inside = y >= 0 && y < job.height && x >= 0 && x < job.width;
        pixels[i * (COLUMNS + 2) + j] = inside ? picture + pixel(at, i - 1, j - 1) * job.inputs : nothing;
      }
  }
};

}  // namespace portrait4d
