//! `shard-{000..012}.tar`: many names written as one.

use std::path::PathBuf;

use crate::{Error, Result};

/// More names than this are taken for a slip.
const MOST_NAMES: usize = 100_000;

/// The shards that names with braces stand for, in order: `{000..012}` counts (with as many digits as are written),
/// `{a,b}` lists. A name that exists as it is written is taken so.
///
/// # Errors
/// [`Error::File`] when braces are not closed, hold neither a range nor a list, or stand for more than 100,000 names.
///
/// ```
/// use ddas_formats::expand_shards;
///
/// let shards = expand_shards(&["{a,b}-{08..10}.tar"])?;
/// let names: Vec<&str> = shards.iter().filter_map(|path| path.to_str()).collect();
/// assert_eq!(names, ["a-08.tar", "a-09.tar", "a-10.tar", "b-08.tar", "b-09.tar", "b-10.tar"]);
/// # Ok::<(), ddas_formats::Error>(())
/// ```
pub fn expand_shards<S: AsRef<str>>(names: &[S]) -> Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for name in names {
        let name = name.as_ref();
        let refuse = |reason: String| Error::file(name.as_ref(), reason);
        if PathBuf::from(name).exists() {
            shards.push(name.into());
            continue;
        }
        shards.extend(expand(name).map_err(refuse)?.into_iter().map(PathBuf::from));
        if shards.len() > MOST_NAMES {
            return Err(refuse(format!("stands for more than {MOST_NAMES} shards")));
        }
    }
    Ok(shards)
}

fn expand(name: &str) -> std::result::Result<Vec<String>, String> {
    let Some((before, rest)) = name.split_once('{') else {
        return Ok(vec![name.to_owned()]);
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return Err("a `{` without `}`".into());
    };
    let middles = match inside.split_once("..") {
        Some((first, last)) => count(first, last)?,
        None if inside.contains(',') => inside.split(',').map(str::to_owned).collect(),
        None => {
            return Err(format!(
                "`{{{inside}}}` is neither a range such as {{000..012}} nor a list such as {{a,b}}"
            ));
        }
    };
    let afters = expand(after)?;
    if middles.len().saturating_mul(afters.len()) > MOST_NAMES {
        return Err(format!("stands for more than {MOST_NAMES} shards"));
    }
    Ok(middles
        .iter()
        .flat_map(|middle| {
            afters
                .iter()
                .map(move |after| format!("{before}{middle}{after}"))
        })
        .collect())
}

fn count(first: &str, last: &str) -> std::result::Result<Vec<String>, String> {
    let wrong = || format!("`{{{first}..{last}}}` is no range of numbers such as {{000..012}}");
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let (from, to) = (number(first)?, number(last)?);
    // Digits are filled up only where they are written so, as shells do.
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = match padded(first) || padded(last) {
        true => first.len().max(last.len()),
        false => 0,
    };
    if from.abs_diff(to) >= MOST_NAMES as u64 {
        return Err(format!("stands for more than {MOST_NAMES} shards"));
    }
    let name = |number: u64| format!("{number:0width$}");
    Ok(match from <= to {
        true => (from..=to).map(name).collect(),
        false => (to..=from).rev().map(name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected names are what bash prints for the same words.
    #[test]
    fn braces_expand_as_in_a_shell() {
        for (name, expected) in [
            ("a.tar", "a.tar"),
            (
                "s-{000..003}.tar",
                "s-000.tar s-001.tar s-002.tar s-003.tar",
            ),
            ("{8..11}", "8 9 10 11"),
            ("{08..10}", "08 09 10"),
            (
                "{1..010}x",
                "001x 002x 003x 004x 005x 006x 007x 008x 009x 010x",
            ),
            ("{2..0}", "2 1 0"),
            ("{x,y}{1..2}", "x1 x2 y1 y2"),
            ("{x,}.tar", "x.tar .tar"),
        ] {
            assert_eq!(expand(name).unwrap().join(" "), expected, "{name}");
        }
    }

    #[test]
    fn other_braces_are_refused() {
        for (name, part) in [
            ("s-{1..3.tar", "without `}`"),
            ("s-{1}.tar", "neither a range"),
            ("s-{a..c}.tar", "no range of numbers"),
            ("s-{1..9999999}.tar", "more than 100000"),
            ("{1..1000}{1..1000}", "more than 100000"),
        ] {
            let error = expand_shards(&[name]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
    }
}
