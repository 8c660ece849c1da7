// The parts of docs/quantizers/ that the registry knows better than any author: option tables, pictures, and
// the table of all quantizers. The rest of the pages is written by hand and never changed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quant/registry.h"

namespace qtrain::cli {

using Quantizers = std::vector<const quant::QuantizerInfo*>;

// Those that have a page: all that are registered but `none`, of which there is nothing to tell.
Quantizers documented_quantizers();

// Puts `block` between `<!-- NAME -->` and `<!-- /NAME -->`. A page without these lines gets them: in the
// place of the first table under the heading `## Options` (or what `heading` says), else right under the
// heading, else with the heading at its end.
std::string with_block(const std::string& page, const std::string& name, const std::string& heading,
                       const std::string& block);

// Puts an image behind the first paragraph, unless the page shows that file already.
std::string with_picture(const std::string& page, const std::string& text, const std::string& file);

// A table of the options of all roles; options that are the same in several roles share a row.
std::string option_table(const quant::QuantizerInfo& info);

// The page as it should be.
std::string updated_page(const std::string& page, const quant::QuantizerInfo& info);
std::string updated_index(const std::string& page, const Quantizers& all);

// Pictures: NAME.svg by the name of the quantizer, and of all of them.
std::string picture_of(const quant::QuantizerInfo& info);
std::string picture_of_all(const Quantizers& all);

// Brings the folder up to date. Returns what is left to be done by hand: pages that are missing.
std::vector<std::string> update_pages(const std::filesystem::path& folder, const Quantizers& all);

// What update_pages() would change or miss, a line each. Of pictures only the lettering is compared: where a
// step lies to the last digit depends on the processor.
std::vector<std::string> check_pages(const std::filesystem::path& folder, const Quantizers& all);

}  // namespace qtrain::cli
