//! Recipes by name or from a file.

use std::io;
use std::path::Path;

use ddas_formats::read_small_file;
use ddas_runtime::Recipe;

use crate::error::{Error, Result};

/// More than any recipe file may hold; what is longer is refused by its size.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The recipe of a name ([`Recipe::NAMES`]) or of a file, which ends in `.toml`.
///
/// ```
/// assert_eq!(ddas_loader::read_recipe("imagenet")?.size(), 224);
/// let error = ddas_loader::read_recipe("missing.toml").unwrap_err().to_string();
/// assert!(error.starts_with("reading recipe missing.toml"), "{error}");
/// # Ok::<(), ddas_loader::Error>(())
/// ```
///
/// # Errors
/// [`Error::UnknownRecipe`] for a name that nothing carries, [`Error::Io`] when the file cannot be read,
/// [`Error::Runtime`] naming file, line and field when it is not a recipe.
pub fn read_recipe(spec: &str) -> Result<Recipe> {
    if !is_file(spec) {
        return Recipe::named(spec).map_err(|_| unknown(spec));
    }
    let path = Path::new(spec);
    let failed = |source| Error::Io {
        action: format!("reading recipe {spec}"),
        source,
    };
    let text = read_small_file(path, MAX_FILE_BYTES)
        .and_then(|bytes| {
            String::from_utf8(bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
        })
        .map_err(failed)?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    let name = stem.as_deref().unwrap_or(spec);
    Recipe::from_toml(&text, name).map_err(|error| {
        Error::Runtime(match error {
            ddas_runtime::Error::RecipeText { line, reason, .. } => {
                ddas_runtime::Error::RecipeText {
                    recipe: spec.to_owned(),
                    line,
                    reason,
                }
            }
            other => other,
        })
    })
}

/// Whether `spec` names a file rather than a recipe.
fn is_file(spec: &str) -> bool {
    Path::new(spec)
        .extension()
        .is_some_and(|extension| extension == "toml")
}

/// Refuses what cannot be a recipe without reading any file, for flags.
///
/// # Errors
/// [`Error::UnknownRecipe`].
pub fn check_recipe_name(spec: &str) -> Result<()> {
    if is_file(spec) || Recipe::NAMES.contains(&spec) {
        Ok(())
    } else {
        Err(unknown(spec))
    }
}

fn unknown(spec: &str) -> Error {
    let note = match spec {
        "detection" => " in this version: recipes do not move boxes yet",
        _ => "",
    };
    Error::UnknownRecipe {
        spec: spec.to_owned(),
        note,
        known: Recipe::NAMES.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_and_files_are_told_apart() {
        assert_eq!(read_recipe("cifar").unwrap().name(), "cifar");
        let error = read_recipe("cifer").unwrap_err().to_string();
        assert!(
            error.contains("`cifer`") && error.contains("cifar, "),
            "{error}"
        );
        let error = read_recipe("detection").unwrap_err().to_string();
        assert!(error.contains("boxes"), "{error}");
        check_recipe_name("not-there.toml").unwrap();
        assert!(check_recipe_name("recipe.txt").is_err());
    }

    #[test]
    fn a_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let spec = path.to_str().unwrap();
        let text = Recipe::named("imagenet").unwrap().to_toml();
        fs::write(&path, text.replace("name = \"imagenet\"\n", "")).unwrap();
        let recipe = read_recipe(spec).unwrap();
        assert_eq!(recipe.name(), "mine");
        assert_eq!(recipe.digest(), Recipe::named("imagenet").unwrap().digest());

        fs::write(&path, text.replace("ratio", "raito")).unwrap();
        let error = read_recipe(spec).unwrap_err().to_string();
        let expected = "mine.toml`, line 8: steps[0].raito: unknown field, did you mean `ratio`?";
        assert!(error.ends_with(expected), "{error}");

        fs::write(&path, "x".repeat(100_000)).unwrap();
        let error = read_recipe(spec).unwrap_err().to_string();
        assert!(error.contains("100000 bytes"), "{error}");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = read_recipe(spec).unwrap_err().to_string();
        assert!(error.contains("mine.toml"), "{error}");
    }
}
