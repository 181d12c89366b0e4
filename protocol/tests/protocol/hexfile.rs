//! Golden files: encoded values as hexadecimal text under `tests/golden`, compared byte by byte and decoded back.
//! `UPDATE_GOLDEN=1` writes them anew: before version 0.1 in a commit of its own, afterwards only new ones.

use std::{collections::BTreeSet, fmt::Debug, fs, path::PathBuf};

use dotmac_protocol::codec::{Format, decode, encode};

/// The golden files that one test is about.
pub(crate) struct Golden {
    seen: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    pub(crate) fn new() -> Self {
        Self {
            seen: BTreeSet::new(),
            wrong: vec![],
        }
    }

    /// Compares a value with its file, both ways.
    pub(crate) fn check<T: Format + PartialEq + Debug>(&mut self, name: &str, value: &T) {
        let bytes = encode(value).unwrap_or_else(|error| panic!("{name}: {error}"));
        let path = folder().join(format!("{name}.hex"));
        self.seen.insert(format!("{name}.hex"));
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, to_text(&bytes)).unwrap();
        }
        let Ok(text) = fs::read_to_string(&path) else {
            self.wrong.push(format!("{name}: there is no golden file"));
            return;
        };
        let kept = hex::decode(text.split_whitespace().collect::<String>()).unwrap();
        if kept != bytes {
            let at = kept
                .iter()
                .zip(&bytes)
                .take_while(|(one, other)| one == other)
                .count();
            self.wrong
                .push(format!("{name}: other bytes from byte {at} on"));
        }
        match decode::<T>(&kept) {
            Ok(read) if read == *value => {}
            Ok(read) => self.wrong.push(format!("{name}: reads as {read:?}")),
            Err(error) => self.wrong.push(format!("{name}: cannot be read: {error}")),
        }
    }

    /// Checks every variant of an enumeration: in order, none left out.
    pub(crate) fn check_variants<T: Format + PartialEq + Debug>(
        &mut self,
        name: &str,
        values: &[(&str, T)],
    ) {
        for (index, (variant, value)) in values.iter().enumerate() {
            let found = usize::from(encode(value).unwrap()[1]);
            assert_eq!(found, index, "{name} {variant} is variant {found}");
            self.check(&format!("{name}-{variant}"), value);
        }
        let beyond = u8::try_from(values.len()).unwrap();
        let error = decode::<T>(&[T::VERSION, beyond]).unwrap_err().to_string();
        let expected = format!("variant index 0 <= i < {beyond}");
        assert!(
            error.contains(&expected),
            "a variant of {name} has no golden file: {error}"
        );
    }

    /// Fails with everything that differs, or with a file that belongs to nothing.
    pub(crate) fn done(self) {
        assert!(
            self.wrong.is_empty(),
            "{}\nstored and signed bytes changed; see the text of hexfile.rs",
            self.wrong.join("\n")
        );
        let files = fs::read_dir(folder()).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(
            files, self.seen,
            "a golden file is missing, or belongs to nothing"
        );
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Lines of 32 bytes.
fn to_text(bytes: &[u8]) -> String {
    let mut text: String = bytes
        .chunks(32)
        .map(|line| hex::encode(line) + "\n")
        .collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}
