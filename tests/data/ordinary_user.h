// What happens to users without rights, when the tests run as the superuser.
#pragma once

#include <unistd.h>

#include <cstdlib>

namespace qtrain::data {

// While it lives, the process has no more rights than anybody: the superuser may read and write everything.
class OrdinaryUser {
 public:
  OrdinaryUser() : became_(was_root_ && ::seteuid(nobody) == 0) {}
  ~OrdinaryUser() {
    if (became_ && ::seteuid(0) != 0) std::abort();
  }
  OrdinaryUser(const OrdinaryUser&) = delete;
  OrdinaryUser& operator=(const OrdinaryUser&) = delete;

  bool is_one() const { return !was_root_ || became_; }  // some containers have no other users

 private:
  static constexpr uid_t nobody = 65534;
  const bool was_root_ = ::geteuid() == 0;
  const bool became_;
};

}  // namespace qtrain::data
