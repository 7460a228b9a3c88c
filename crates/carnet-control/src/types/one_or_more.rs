use std::{fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        self, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

/// A value or a list of values, as the policy file has it. Nothing at all is for what is left out: an empty list that is
/// written down is an error, for it could be taken for "nothing" as well as for "everything".
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct OneOrMore<T>(Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for OneOrMore<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for OneOrMore<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> OneOrMore<T> {
    /// Whether it is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values(PhantomData))
    }
}

/// Leaves what is no list to `T`, whose errors say more than "one or a list" could.
struct Values<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Values<T> {
    type Value = OneOrMore<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore<T>, E> {
        one(de::value::StrDeserializer::new(text))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<OneOrMore<T>, E> {
        one(de::value::U64Deserializer::new(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<OneOrMore<T>, E> {
        one(de::value::I64Deserializer::new(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<OneOrMore<T>, E> {
        one(de::value::F64Deserializer::new(number))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<OneOrMore<T>, A::Error> {
        one(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMore<T>, A::Error> {
        let values = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        if values.is_empty() {
            return Err(de::Error::custom("the list is empty: leave it out, or write what is meant"));
        }
        Ok(OneOrMore(values))
    }
}

fn one<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMore<T>, D::Error> {
    T::deserialize(deserializer).map(|value| OneOrMore(vec![value]))
}

#[cfg(test)]
impl<T: schemars::JsonSchema> schemars::JsonSchema for OneOrMore<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMore_{}", T::schema_name()).into()
    }

    fn json_schema(schemas: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = schemas.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::OneOrMore;
    use crate::{Id, Owner};

    #[test]
    fn one_and_a_list_of_one_are_the_same() {
        for (one, list) in [("7", "[7]"), ("\"alice\"", "[\"alice\"]")] {
            let one: OneOrMore<Id> = serde_json::from_str(one).unwrap();
            assert_eq!(one, serde_json::from_str(list).unwrap());
            assert_eq!(one.len(), 1);
        }
        let owner: OneOrMore<Owner> = serde_json::from_str(r#"{"cgroup": "/a"}"#).unwrap();
        assert_eq!(*owner, [Owner::Cgroup("/a".into())]);
        assert_eq!(serde_json::to_string(&owner).unwrap(), r#"[{"cgroup":"/a"}]"#);
    }

    #[test]
    fn what_is_wrong_is_told_by_what_it_should_be() {
        for (text, said) in [
            ("[]", "the list is empty"),
            ("1.5", "expected a number or a name"),
            ("[true]", "expected a number or a name"),
            ("true", "a value or a list of values"),
            ("-1", "expected a number or a name"),
        ] {
            let error = serde_json::from_str::<OneOrMore<Id>>(text).unwrap_err();
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }
}
