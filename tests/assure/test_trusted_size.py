"""The numbers of lines of trusted code that the README states are those that there are."""

from assure.trusted_size import APART, ROOT, SERVING, code_lines, count, modules_for_tests

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
    verifier, daemon = count(SERVING["verifier"]), count(SERVING["daemon"])
    assert {"thread.rs", "thread/requests.rs"} <= verifier.keys()
    assert not [name for name in verifier if name.startswith("tests/")]
    assert "register/file.rs" in daemon
    assert not {"golden.rs", "scratch.rs"} & daemon.keys()


def test_the_readme_states_the_numbers() -> None:
    """Trusted code may grow, but not by a hundred lines unnoticed."""
    serving, apart = (
        {crate: sum(count(folder).values()) for crate, folder in crates.items()} for crates in (SERVING, APART)
    )
    serves, verifier, tpm, operator = (
        f"{round(lines, -2):,}"
        for lines in (sum(serving.values()), serving["verifier"], apart["tpm"], apart["operator"])
    )
    sentence = (
        f"the process that serves is about {serves} lines of trusted code, about {verifier} of them the verifier; "
        f"apart from it there are about {tpm} lines for a register in a TPM, "
        f"and about {operator} of the operator's program"
    )
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
