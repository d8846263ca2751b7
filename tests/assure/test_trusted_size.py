"""The number of lines of trusted code that the README states is the number that there are."""

import re

from assure.trusted_size import CRATES, ROOT, code_lines, count, modules_for_tests

SOURCE = """//! A module.

#![no_std]
/* not
   code */
#[cfg(test)]
mod only_tests;
#[cfg(test)]
pub(crate) use tests::helper;

/// Adds.
fn add(text: &'static str) -> char {
    let brace = '{'; // a bracket in a character, and "quotes"

    r#"a string
// of two lines"#
}
#[cfg(not(test))]
const fn shipped() {}

#[cfg(test)]
mod tests {
    #[test]
    fn adds() {
        assert_eq!(add("}"), '{');
    }
}
struct Last;
"""


def test_lines_with_code_are_counted() -> None:
    lines = SOURCE.splitlines()
    counted = [lines[number - 1].strip() for number in sorted(code_lines(SOURCE))]
    assert counted == [
        "#![no_std]",
        "fn add(text: &'static str) -> char {",
        "let brace = '{'; // a bracket in a character, and \"quotes\"",
        'r#"a string',
        '// of two lines"#',
        "}",
        "#[cfg(not(test))]",
        "const fn shipped() {}",
        "struct Last;",
    ]
    assert modules_for_tests(SOURCE) == {"only_tests"}


def test_files_for_tests_are_not_counted() -> None:
    verifier, daemon = count(CRATES["verifier"]), count(CRATES["daemon"])
    assert {"thread.rs", "thread/requests.rs"} <= verifier.keys()
    assert not [name for name in verifier if name.startswith("tests/")]
    assert "register/tpm.rs" in daemon
    assert not {"golden.rs", "scratch.rs"} & daemon.keys()


def test_the_readme_states_the_number() -> None:
    """Trusted code may grow, but not by a hundred lines unnoticed."""
    (stated,) = re.findall(r"about ([\d,]+) lines of\s+trusted code", (ROOT / "README.md").read_text())
    lines = sum(sum(count(folder).values()) for folder in CRATES.values())
    assert stated == f"{round(lines, -2):,}", f"the README must say: about {round(lines, -2):,} lines of trusted code"
