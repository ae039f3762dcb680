//! Text of an error: the attempt and the reason, each once.

/// The error and its causes, joined by colons. Many library errors already contain their cause,
/// which is then not repeated.
pub(crate) fn of(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text += ": ";
        }
        text += &cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let missing = || std::io::Error::from_raw_os_error(2);
        let named = Err::<(), _>(missing()).context(format!("a.toml: {}", missing()));
        let named = named.context("cannot read a.toml").unwrap_err();
        let expected = format!("cannot read a.toml: a.toml: {}", missing());
        assert_eq!(of(&named), expected);
        let plain = Err::<(), _>(missing()).context("a.toml").unwrap_err();
        assert_eq!(of(&plain), format!("a.toml: {}", missing()));
        assert_eq!(of(&anyhow!("alone")), "alone");
    }
}
