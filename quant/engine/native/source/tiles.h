// AMX tiles: eight of sixteen rows of 64 bytes. 0-3 accumulate, 4 and 5 hold the left operand, 6 and 7 the right one.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>

namespace facsimile {

struct TileScope {
  TileScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  ~TileScope() { _tile_release(); }
};

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Uninitialized memory on a cache line's border.
template <typename T>
struct Buffer {
  explicit Buffer(int64_t count) : data(static_cast<T*>(std::aligned_alloc(64, round_up(count * sizeof(T), 64)))) {}
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  T* data;
};

}  // namespace facsimile
