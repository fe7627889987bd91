//! `nbdinfo` of libnbd: what the server says of itself.

use serde_json::Value;

use crate::program::Program;

fn nbdinfo() -> Option<Program> {
    Program::find("nbdinfo", "libnbd-bin")
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Size, flags, block sizes and contexts, as libnbd understood them.
pub fn size_flags_and_block_sizes(uri: &str, size: u64) {
    let Some(nbdinfo) = nbdinfo() else { return };
    assert_eq!(nbdinfo.run(&["--size", uri]).trim(), size.to_string());
    let answer = parse(&nbdinfo.run(&["--json", uri]));
    assert_eq!(answer["protocol"], "newstyle-fixed", "{answer:#}");
    assert_eq!(answer["structured"], true, "{answer:#}");
    let export = &answer["exports"][0];
    for (field, expected) in [
        ("export-size", Value::from(size)),
        ("is_read_only", false.into()),
        ("is_rotational", false.into()),
        ("can_df", true.into()),
        ("can_flush", true.into()),
        ("can_fua", true.into()),
        ("can_multi_conn", true.into()),
        ("can_zero", true.into()),
        ("can_fast_zero", true.into()),
        ("can_cache", false.into()),
        ("contexts", vec!["base:allocation"].into()),
        ("block_size_maximum", (32 << 20).into()),
    ] {
        assert_eq!(export[field], expected, "{field} in {answer:#}");
    }
    let minimum = export["block_size_minimum"].as_u64().expect("a number");
    let preferred = export["block_size_preferred"].as_u64().expect("a number");
    assert!(minimum >= 512 && preferred >= minimum, "{answer:#}");
}

/// The names and descriptions of a server's exports, from `--list`.
pub fn listed(uri: &str) -> Option<Vec<(String, String)>> {
    let answer = parse(&nbdinfo()?.run(&["--json", "--list", uri]));
    let exports = answer["exports"].as_array().expect("a list of exports");
    let text = |export: &Value, field: &str| export[field].as_str().unwrap_or("").to_owned();
    let pair = |export| (text(export, "export-name"), text(export, "description"));
    Some(exports.iter().map(pair).collect())
}

/// `base:allocation` says that everything is data.
pub fn one_extent_of_data(uri: &str, size: u64) {
    let Some(nbdinfo) = nbdinfo() else { return };
    let map = parse(&nbdinfo.run(&["--json", "--map", uri]));
    let extents = map.as_array().expect("a list of extents");
    let total: u64 = extents.iter().filter_map(|extent| extent["length"].as_u64()).sum();
    assert_eq!(total, size, "{map:#}");
    assert!(extents.iter().all(|extent| extent["type"] == 0), "{map:#}");
}
