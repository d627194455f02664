//! The JSON form of an entry: an operation's object with two more fields.
//!
//! The object is read in one pass, field by field, so that errors carry the
//! path of the field and a hostile file cannot make a reader build more than
//! its limits allow.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Candidate, Entry, SEQUENCE, Step, Variation};
use crate::operation::Operation;
use crate::operation_json::OperationFields;
use crate::{Error, Result};

/// What an entry's object may hold beside an operation's fields.
#[derive(Default)]
struct Extras {
    varies: Option<Variation>,
    steps: Option<Vec<Step>>,
}

/// An object's fields, without those of [`Extras`], which it keeps aside.
struct Aside<'a, A> {
    fields: A,
    extras: &'a mut Extras,
    /// Whether `steps` may appear: steps have none of their own.
    nests: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Aside<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> std::result::Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.fields.next_key::<String>()? {
            match key.as_str() {
                "varies" => {
                    if self.extras.varies.is_some() {
                        return Err(A::Error::duplicate_field("varies"));
                    }
                    self.extras.varies = Some(self.fields.next_value()?);
                }
                "steps" if self.nests => {
                    if self.extras.steps.is_some() {
                        return Err(A::Error::duplicate_field("steps"));
                    }
                    self.extras.steps = Some(self.fields.next_value_seed(StepsSeed)?);
                }
                _ => {
                    let key: serde::de::value::StringDeserializer<A::Error> =
                        key.into_deserializer();
                    return seed.deserialize(key).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> std::result::Result<V::Value, A::Error> {
        self.fields.next_value_seed(seed)
    }
}

/// Reads the steps of a sequence and stops at the first too many.
struct StepsSeed;

impl<'de> DeserializeSeed<'de> for StepsSeed {
    type Value = Vec<Step>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Vec<Step>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for StepsSeed {
    type Value = Vec<Step>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of steps")
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut items: A,
    ) -> std::result::Result<Vec<Step>, A::Error> {
        let mut steps = Vec::new();
        while let Some(step) = items.next_element()? {
            if steps.len() == Entry::MAX_STEPS {
                return Err(A::Error::custom(format!(
                    "more than the {} steps a sequence may have",
                    Entry::MAX_STEPS
                )));
            }
            steps.push(step);
        }
        Ok(steps)
    }
}

struct ObjectVisitor {
    nests: bool,
}

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = (OperationFields, Extras);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an operation")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> std::result::Result<Self::Value, A::Error> {
        let mut extras = Extras::default();
        let fields = OperationFields::deserialize(MapAccessDeserializer::new(Aside {
            fields,
            extras: &mut extras,
            nests: self.nests,
        }))?;
        Ok((fields, extras))
    }
}

fn candidate(mut fields: OperationFields, varies: Option<Variation>) -> Result<Candidate> {
    let Some(variation) = varies else {
        return Operation::try_from(fields).map(Candidate::from);
    };
    let argument = variation.argument();
    if argument.is_in(&fields) {
        return Err(Error::field(
            argument.name(),
            "given, and varied as well; leave it to `varies`",
        ));
    }
    argument.set(&mut fields, Some(variation.middle()));
    Candidate::varied(Operation::try_from(fields)?, variation)
}

fn entry(fields: OperationFields, extras: Extras) -> Result<Entry> {
    if fields.kind != SEQUENCE {
        if extras.steps.is_some() {
            return Err(Error::field(
                "steps",
                format!("{} has none; only a {SEQUENCE} has", fields.kind),
            ));
        }
        return candidate(fields, extras.varies).map(Entry::Single);
    }
    if extras.varies.is_some() {
        return Err(Error::field(
            "varies",
            format!("a {SEQUENCE} has no argument; its steps' operations have"),
        ));
    }
    let bare = OperationFields {
        kind: SEQUENCE.to_owned(),
        ..OperationFields::default()
    };
    if fields != bare {
        return Err(Error::field(
            "kind",
            format!("a {SEQUENCE} takes `steps` and nothing else"),
        ));
    }
    match extras.steps {
        Some(steps) => Entry::sequence(steps),
        None => Err(Error::field(
            "steps",
            format!("missing: {SEQUENCE} needs it"),
        )),
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (fields, extras) = deserializer.deserialize_map(ObjectVisitor { nests: true })?;
        entry(fields, extras).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Candidate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (fields, extras) = deserializer.deserialize_map(ObjectVisitor { nests: false })?;
        if fields.kind == SEQUENCE {
            return Err(D::Error::custom(format!(
                "kind: a {SEQUENCE} inside a {SEQUENCE}; list its steps in the outer one"
            )));
        }
        candidate(fields, extras.varies).map_err(D::Error::custom)
    }
}

impl Serialize for Candidate {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Varied<'a> {
            #[serde(flatten)]
            fields: OperationFields,
            varies: &'a Variation,
        }
        let mut fields = OperationFields::from(self.operation);
        match &self.variation {
            None => fields.serialize(serializer),
            Some(varies) => {
                varies.argument().set(&mut fields, None);
                Varied { fields, varies }.serialize(serializer)
            }
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Entry::Single(candidate) => candidate.serialize(serializer),
            Entry::Sequence(steps) => {
                let mut object = serializer.serialize_struct(SEQUENCE, 2)?;
                object.serialize_field("kind", SEQUENCE)?;
                object.serialize_field("steps", &steps[..])?;
                object.end()
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFields {
    probability: Probability,
    operation: Candidate,
}

/// A number that fails at its own place in the document.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
#[derive(Clone, Copy)]
struct Probability(f64);

impl TryFrom<f64> for Probability {
    type Error = String;

    fn try_from(value: f64) -> std::result::Result<Self, String> {
        if (0.0..=1.0).contains(&value) {
            Ok(Probability(value))
        } else {
            Err(format!("{value} is not a probability between 0 and 1"))
        }
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> f64 {
        probability.0
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let fields = StepFields::deserialize(deserializer)?;
        Ok(Step {
            probability: fields.probability.0,
            candidate: fields.operation,
        })
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        StepFields {
            probability: Probability(self.probability),
            operation: self.candidate,
        }
        .serialize(serializer)
    }
}
