// docs/quantizers/ against the registry, and the generator that keeps them together.
#include "cli/quantizer_pages.h"

#include <gtest/gtest.h>

#include "tests/cli/temporary_folder.h"
#include "tests/tests_folder.h"

namespace qtrain::cli {
namespace {

const std::filesystem::path docs = testing_support::tests_folder() / ".." / "docs" / "quantizers";

TEST(QuantizerPages, AreTrueToTheCode) {
  for (const std::string& problem : check_pages(docs, documented_quantizers())) ADD_FAILURE() << problem;
}

TEST(QuantizerPages, BlockTakesThePlaceOfTheOldOne) {
  EXPECT_EQ(with_block("a\n<!-- t -->\nold\nolder\n<!-- /t -->\nb\n", "t", "## T", "new\n"),
            "a\n<!-- t -->\nnew\n<!-- /t -->\nb\n");
  // Of a table without the marks.
  EXPECT_EQ(with_block("a\n\n## T\n\nwords\n\n| x |\n|---|\n| 1 |\n\nmore\n\n## U\n", "t", "## T", "new\n"),
            "a\n\n## T\n\nwords\n\n<!-- t -->\nnew\n<!-- /t -->\n\nmore\n\n## U\n");
  // Another heading's table stays.
  EXPECT_EQ(with_block("## T\n\nwords\n\n## U\n\n| x |\n", "t", "## T", "new\n"),
            "## T\n\n<!-- t -->\nnew\n<!-- /t -->\n\nwords\n\n## U\n\n| x |\n");
  EXPECT_EQ(with_block("a\n", "t", "## T", "new\n"), "a\n\n## T\n\n<!-- t -->\nnew\n<!-- /t -->\n");
}

TEST(QuantizerPages, PictureFollowsTheFirstParagraph) {
  EXPECT_EQ(with_picture("# t\n\none\ntwo\n\nthree\n", "p", "p.svg"),
            "# t\n\none\ntwo\n\n![p](p.svg)\n\nthree\n");
  EXPECT_EQ(with_picture("# t\n\none\n", "p", "p.svg"), "# t\n\none\n\n![p](p.svg)\n");
  EXPECT_EQ(with_picture("# t\n\n![mine](p.svg)\n\none\n", "p", "p.svg"), "# t\n\n![mine](p.svg)\n\none\n");
}

TEST(QuantizerPages, OptionsThatRolesShareAreOneRow) {
  const quant::OptionSpec shared{"levels", quant::OptionType::integer, "0", "a|b", {}};
  quant::OptionSpec other = shared;
  other.default_value = "3";
  const quant::QuantizerInfo info{
      .name = "q",
      .summary = "",
      .source = "",
      .weight_options = {shared},
      .activation_options = {shared},
      .make = {},
      .roles = {quant::Role::weight, quant::Role::activation, quant::Role::output},
      .output_options = {other}};
  EXPECT_EQ(option_table(info),
            "| `--set` | of | default | values | meaning |\n|---|---|---|---|---|\n"
            "| `levels` | weight, activation | 0 | whole number | a\\|b |\n"
            "| `levels` | output | 3 | whole number | a\\|b |\n");
}

TEST(QuantizerPages, UpdateMendsWhatCheckFinds) {
  const TemporaryFolder folder;
  const Quantizers sat = {&quant::find_quantizer("sat")};
  EXPECT_FALSE(check_pages(folder.path(), sat).empty());
  EXPECT_EQ(update_pages(folder.path(), sat).size(),
            2U);  // pages that nobody has written: of sat, and of all
  write_file(folder.file("sat.md"), "# sat\n\nA paragraph.\n\n## Options\n");
  write_file(folder.file("README.md"), "# Quantizers\n");
  EXPECT_TRUE(update_pages(folder.path(), sat).empty());
  EXPECT_TRUE(check_pages(folder.path(), sat).empty());
  const std::string page = read_file(folder.file("sat.md"));
  EXPECT_NE(
      page.find(
          "A paragraph.\n\n![sat: y(x) and its gradients](sat.svg)\n\n## Options\n\n<!-- options -->\n"),
      std::string::npos)
      << page;

  // A default that isn't the code's, another text on a picture, a picture that is gone.
  std::string wrong = page;
  wrong.replace(wrong.find("| modified |"), 12, "| centered |");
  write_file(folder.file("sat.md"), wrong);
  std::string picture = read_file(folder.file("sat.svg"));
  picture.replace(picture.find("alpha = 8"), 9, "alpha = 9");
  write_file(folder.file("sat.svg"), picture);
  std::filesystem::remove(folder.file("all.svg"));
  EXPECT_EQ(check_pages(folder.path(), sat).size(), 3U);
  EXPECT_TRUE(update_pages(folder.path(), sat).empty());
  EXPECT_TRUE(check_pages(folder.path(), sat).empty());
  EXPECT_EQ(read_file(folder.file("sat.md")), page);
}

TEST(QuantizerPages, MayServeSeveralQuantizers) {
  const TemporaryFolder folder;
  const std::string text = "# none, sat: both\n\nWords about none and sat.\n";
  write_file(folder.file("both.md"), text);
  write_file(folder.file("other.md"), "# others\n\nsat\n");
  write_file(folder.file("README.md"), "# Quantizers\n");
  for (const quant::QuantizerInfo* info : {&quant::find_quantizer("none"), &quant::find_quantizer("sat")})
    EXPECT_EQ(page_of(folder.path(), *info).filename(), "both.md");
  const Quantizers both = {&quant::find_quantizer("none"), &quant::find_quantizer("sat")};
  EXPECT_TRUE(update_pages(folder.path(), both).empty());
  EXPECT_TRUE(check_pages(folder.path(), both).empty());
  const std::string page = read_file(folder.file("both.md"));
  EXPECT_EQ(page.rfind(text, 0), 0U);
  for (const std::string name : {"none", "sat"}) {
    std::string section = "\n## Options of NAME\n\n<!-- options NAME -->\n![NAME: y(x)";
    for (std::size_t at = section.find("NAME"); at != std::string::npos; at = section.find("NAME"))
      section.replace(at, 4, name);
    EXPECT_NE(page.find(section), std::string::npos) << page;
  }
  EXPECT_NE(read_file(folder.file("README.md")).find("| [sat](both.md) |"), std::string::npos);
}

}  // namespace
}  // namespace qtrain::cli
