#include "engine/ops/result_ring.h"

#include <fmt/format.h>

#include <array>

#include "engine/backend/backend.h"
#include "engine/kernels/elementwise.h"
#include "engine/ops/check.h"

namespace qtrain {
namespace {

constexpr std::string_view op = "result ring";

struct AppendRow {
  std::array<const float*, ResultRing::most_columns> from;
  std::int64_t rows;
  std::int64_t columns;
  float* values;
  std::int64_t* appended;

  QTRAIN_HOST_DEVICE void operator()(std::int64_t /*the only one*/) const {
    float* const row = values + *appended % rows * columns;
    for (std::int64_t k = 0; k < columns; ++k) row[k] = *from[static_cast<std::size_t>(k)];
    ++*appended;
  }
};

}  // namespace

ResultRing::ResultRing(std::int64_t rows, std::int64_t columns, Device device) {
  check::value(rows >= 1 && columns >= 1 && columns <= most_columns, op, "size",
               fmt::format("{} rows of {}", rows, columns), "1 row or more, of 1 to 4 columns");
  values_ = Tensor::zeros({rows, columns}, DType::f32, device);
  appended_ = Tensor::zeros({}, DType::i64, device);
}

void ResultRing::append(std::span<const Tensor> row) {
  check::sizes(static_cast<std::int64_t>(row.size()) == values_.dim(1), op, "number of columns",
               std::to_string(row.size()), std::to_string(values_.dim(1)));
  AppendRow append{.from = {},
                   .rows = values_.dim(0),
                   .columns = values_.dim(1),
                   .values = values_.data<float>(),
                   .appended = appended_.data<std::int64_t>()};
  for (std::size_t k = 0; k < row.size(); ++k) {
    check::tensor(op, "a result", row[k]);
    check::sizes(row[k].numel() == 1, op, "not a single value", row[k].str(), "one element");
    check::same_device(op, {values_, row[k]});
    append.from[k] = row[k].data<float>();
  }
  for_each(backend(values_.device()).stream(), 1, append);
  values_.bump_version();
}

}  // namespace qtrain
