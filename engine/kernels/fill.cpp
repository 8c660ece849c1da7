#include "engine/kernels/fill.h"

#include "engine/kernels/elementwise.h"

namespace qtrain {
namespace {

struct SetTo {
  float* to;
  float value;
  QTRAIN_HOST_DEVICE void operator()(std::int64_t i) const { to[i] = value; }
};

}  // namespace

void fill(const Stream& stream, float* to, std::int64_t n, float value) {
  for_each(stream, n, SetTo{to, value});
}

}  // namespace qtrain
