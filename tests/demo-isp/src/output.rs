//! Lines on standard output, each written at once.

use std::io::Write as _;

/// Writes one line. A reader that went away is no reason to end.
pub(crate) fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "{line}").is_ok() {
        output.flush().ok();
    }
}

/// Writes about `bytes` bytes of numbered lines.
pub(crate) fn pour(bytes: usize) {
    const LINE: usize = 64;
    for number in 1..=bytes.div_ceil(LINE) {
        let head = format!("output line {number} ");
        say(&format!("{head:.<width$}", width = LINE - 1));
    }
}
