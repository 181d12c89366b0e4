//! An error and its causes as one line, for logs and for people. It adds nothing and hides nothing.

use std::error::Error;

/// The error's text, then each cause's behind a colon.
#[must_use]
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt};

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &dyn Error)
        }
    }

    #[test]
    fn every_cause_is_told_in_order() {
        let inner = Layer("no space", None);
        let error = Layer(
            "not started",
            Some(Box::new(Layer("not written", Some(Box::new(inner))))),
        );
        assert_eq!(super::in_full(&error), "not started: not written: no space");
    }
}
