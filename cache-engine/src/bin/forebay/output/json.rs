//! JSON for programs: one value on one line, keys in alphabetical order.

use serde_json::{Map, Value};

/// An object of `pairs`.
pub(crate) fn object<Name: Into<String>>(pairs: impl IntoIterator<Item = (Name, Value)>) -> Value {
    Value::Object(
        pairs.into_iter().map(|(name, value)| (name.into(), value)).collect::<Map<_, _>>(),
    )
}

/// `value` with `digits` digits after the point, so that lines stay readable.
pub(crate) fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    Value::from((value * scale).round() / scale)
}
