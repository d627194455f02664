//! The values of arguments, read so that errors name what was expected in words a user of the file knows.

use std::fmt;

use serde::de::{self, Deserializer, Expected, IgnoredAny, SeqAccess, Visitor};

/// A number; without this, serde would say "expected f64".
pub(super) fn number<'de, D: Deserializer<'de>>(
    input: D,
) -> std::result::Result<Option<f64>, D::Error> {
    struct Number;

    impl Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a number")
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<f64, E> {
            Ok(value)
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<f64, E> {
            Ok(value as f64)
        }
    }

    input.deserialize_f64(Number).map(Some)
}

/// A whole number.
pub(super) fn whole_number<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    input: D,
) -> std::result::Result<Option<T>, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = i64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a whole number")
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<i64, E> {
            Ok(value)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<i64, E> {
            i64::try_from(value).map_err(|_| too_large(value))
        }
    }

    fn too_large<E: de::Error>(value: impl fmt::Display) -> E {
        E::custom(format!("{value} is far out of range"))
    }

    let value = input.deserialize_i64(Whole)?;
    T::try_from(value).map(Some).map_err(|_| too_large(value))
}

/// Red, green and blue.
pub(super) fn colour<'de, D: Deserializer<'de>>(
    input: D,
) -> std::result::Result<Option<[u8; 3]>, D::Error> {
    struct Colour;

    impl<'de> Visitor<'de> for Colour {
        type Value = [u8; 3];

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("three whole numbers from 0 to 255")
        }

        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut items: A,
        ) -> std::result::Result<[u8; 3], A::Error> {
            let mut fill = [0; 3];
            for (i, value) in fill.iter_mut().enumerate() {
                *value = items
                    .next_element()
                    .map_err(|error| {
                        de::Error::custom(format!("expected {}: {error}", &self as &dyn Expected))
                    })?
                    .ok_or_else(|| de::Error::invalid_length(i, &self))?;
            }
            match items.next_element::<IgnoredAny>()? {
                None => Ok(fill),
                Some(_) => Err(de::Error::invalid_length(4, &self)),
            }
        }
    }

    input.deserialize_seq(Colour).map(Some)
}
