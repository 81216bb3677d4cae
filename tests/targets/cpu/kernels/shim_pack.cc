// The packer as a compiled program exports it.
#include "pack.h"

extern "C" int32_t bossa_pack(const void* source, int32_t stored, int64_t row_stride, int64_t step_stride, int64_t rows,
                              int64_t K, int32_t format, int64_t first, int64_t panel_step, void* panels) {
  return bossa::pack(source, stored, row_stride, step_stride, rows, K, format, first, panel_step, panels);
}
