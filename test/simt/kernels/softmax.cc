// Softmax, its logarithm and their gradients against float64: rows of a warp and of a block, whole vectors and not, in
// place, and numbers beyond all others.
#include "softmax/softmax.h"

#include <algorithm>
#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

/** Calls row(first element) for each. */
template <class Fn>
void eachRow(const Rows& rows, Fn&& row) {
  for (size_t r = 0; r < rows.rows; ++r) row(r * rows.width);
}

Values exactly(const Rows& rows, bool logarithm, const Values& x) {
  Values y(x.size());
  eachRow(rows, [&](size_t at) {
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < rows.width; ++i) most = std::max(most, x[at + i]);
    for (size_t i = 0; i < rows.width; ++i) sum += std::exp(x[at + i] - most);
    for (size_t i = 0; i < rows.width; ++i)
      y[at + i] = logarithm ? x[at + i] - most - std::log(sum) : std::exp(x[at + i] - most) / sum;
  });
  return y;
}

template <class T>
void forward(const Rows& rows, bool logarithm, double low, double high) {
  const Input<T> x(uniform(size_t{rows.rows} * rows.width, low, high, 31));
  Output<T> y(x.size());
  check(softmax(rows, logarithm, x.data(), y.data(), nullptr));
  expectRounded<T>(y.values(), exactly(rows, logarithm, x.values()), 3e-6, 2, "y");
  const Input<T> both(x.values());
  check(softmax(rows, logarithm, both.data(), both.data(), nullptr));
  if (both.values() != y.values()) fail("another result in place");
}

template <class T>
void backward(const Rows& rows, bool logarithm) {
  const Values logits = uniform(size_t{rows.rows} * rows.width, -3, 3, 32);
  const Input<T> y(exactly(rows, logarithm, logits)), dy(uniform(y.size(), -1, 1, 33));
  Output<T> dx(y.size());
  check(softmaxGrad(rows, logarithm, y.data(), dy.data(), dx.data(), nullptr));
  const Values ys = y.values(), ds = dy.values();
  Values wanted(ys.size());
  eachRow(rows, [&](size_t at) {
    double sum = 0;
    for (size_t i = at; i < at + rows.width; ++i) sum += logarithm ? ds[i] : ys[i] * ds[i];
    for (size_t i = at; i < at + rows.width; ++i)
      wanted[i] = logarithm ? ds[i] - std::exp(ys[i]) * sum : ys[i] * (ds[i] - sum);
  });
  expectRounded<T>(dx.values(), wanted, 3e-6, 3, "dx");
  check(softmaxGrad(rows, logarithm, y.data(), dy.data(), dy.data(), nullptr));
  if (dy.values() != dx.values()) fail("another result in place");
}

/** Masked elements have no part, a row of them alone, of infinity or of NaN is NaN; other rows are not touched by it.
 */
template <class T>
void limits(unsigned width) {
  const Rows rows = {5, width};
  Values values = uniform(size_t{5} * width, -1, 1, 34);
  for (size_t i = 0; i < width; ++i) {
    if (i % 3 || i < 32 || i > width - 40) values[i] = -INFINITY;  // the first row, but for some
    values[width + i] = -INFINITY;
  }
  values[width - 1] = 0.5;
  values[2 * width + width / 2] = INFINITY;
  values[3 * width + width / 3] = NAN;
  const Input<T> x(values);
  Output<T> y(x.size());
  check(softmax(rows, false, x.data(), y.data(), nullptr));
  const Values ys = y.values();
  Values sums(5);
  for (size_t i = 0; i < ys.size(); ++i) sums[i / width] += ys[i];
  for (size_t i = 0; i < width; ++i)
    if (values[i] == -INFINITY && ys[i] != 0) fail("masked element %zu is %g", i, ys[i]);
  for (const size_t row : {0, 4})
    if (!(std::abs(sums[row] - 1) < 0.05)) fail("row %zu sums to %g", row, sums[row]);
  for (const size_t row : {1, 2, 3})
    if (!std::isnan(sums[row])) fail("row %zu sums to %g", row, sums[row]);
}

/** One number so far above the others that exponentials about another warp's largest would be infinite. */
template <class T>
void peak() {
  const Rows rows = {1, 2061};
  Values values(rows.width, -200);
  values[0] = 200;
  const Input<T> x(values);
  Output<T> y(x.size());
  check(softmax(rows, true, x.data(), y.data(), nullptr));
  expectRounded<T>(y.values(), exactly(rows, true, values), 3e-6, 2, "y");
}

template <class T>
void add(const std::string& type) {
  const Rows all[] = {{1, 1}, {9, 7}, {3, 77}, {17, 40}, {8, 264}, {3, 1024}, {2, 1025}, {3, 2056}, {1, 2061}};
  for (const Rows& rows : all)
    for (const bool logarithm : {false, true}) {
      const std::string rest =
          (logarithm ? " logarithm, " : ", ") + std::to_string(rows.rows) + " x " + std::to_string(rows.width);
      addCase(type + rest, [=] { forward<T>(rows, logarithm, -5, 5); });
      addCase(type + " gradient" + rest, [=] { backward<T>(rows, logarithm); });
    }
  for (const bool logarithm : {false, true})
    addCase(type + (logarithm ? " logarithm" : "") + ", large logits", [=] {
      forward<T>({3, 33}, logarithm, 384, 416);
    });
  for (const unsigned width : {120u, 1203u})
    addCase(type + " limits of " + std::to_string(width), [=] { limits<T>(width); });
  addCase(type + " logarithm, one number far above", peak<T>);
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  return true;
}();

}  // namespace
