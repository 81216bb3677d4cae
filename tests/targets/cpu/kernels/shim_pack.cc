// The packer of a program that has all formats, and what they say of themselves.
#include "all_formats.h"
#include "pack.h"

using namespace bossa;

extern "C" const char* bossa_pack(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                  int64_t rows, int64_t K, const char* format, int64_t first, int64_t panel_step,
                                  void* panels) {
  return pack<ALL_FORMATS>(source, stored, row_stride, k_stride, rows, K, format, first, panel_step, panels);
}

extern "C" const char* bossa_pack_table(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                        int64_t rows, int64_t K, const char* format, int64_t first, int64_t height,
                                        void* table) {
  return pack_table<FORMATS_OF_TABLES>(source, stored, row_stride, k_stride, rows, K, format, first, height, table);
}
