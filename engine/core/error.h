// Typed errors. Every message reads `[where] what; got X; expected Y; hint`: one line that names the place,
// the mistake and the way out. A user's mistake is always an Error (the command line turns it into exit
// status 2); an assert is only for what no input can reach.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace qtrain {

// The parts of a message; empty ones are left out.
struct Diagnosis {
  std::string where;     // the op, file or flag at fault
  std::string what;      // the mistake, as a short clause
  std::string got;       // what was met
  std::string expected;  // what would have been right
  std::string hint;      // what to do about it
};

class Error : public std::runtime_error {
 public:
  explicit Error(const Diagnosis& diagnosis);
};

// clang-format off
struct ShapeError : Error { using Error::Error; };     // sizes or ranks that don't fit
struct DTypeError : Error { using Error::Error; };     // an element type the operation can't take
struct DeviceError : Error { using Error::Error; };    // tensors on different or missing devices
struct ValueError : Error { using Error::Error; };     // an argument or option out of its range
struct FormatError : Error { using Error::Error; };    // a file that breaks its format's rules
struct IoError : Error { using Error::Error; };        // the operating system refused a file operation
struct AutogradError : Error { using Error::Error; };  // misuse of the tape
struct NumericError : Error { using Error::Error; };   // NaN or infinity where training can't go on
// clang-format on

// The candidate nearest to `name` by edit distance, or "" when none is near enough to be a typing error.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// "did you mean 'resnet18'?", or `otherwise` when no candidate is near.
std::string suggest(std::string_view name, const std::vector<std::string>& candidates,
                    std::string_view otherwise = "");

}  // namespace qtrain
