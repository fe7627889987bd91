//! Who a machine is, by the files that it has. Absent: a real machine's, and root's rights.

use super::*;

const NAMED: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
const ID: &str = "11111111-2222-3333-4444-555555555555";
const OTHER: &str = "99999999-8888-7777-6666-555555555555";

/// A machine's files, and what finds its names in them.
struct Scene {
    root: tempfile::TempDir,
    places: Places,
    machine: Machine,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let machine_id = ("machine-id", "0123456789abcdef0123456789abcdef");
        for (name, text) in files.iter().chain([&machine_id]) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, text).expect("written");
        }
        let places = Places {
            nvme: root.path().join("nvme"),
            may_make_there: true,
            state: Some(root.path().join("state")),
            firmware: root.path().join("product_uuid"),
        };
        let machine = Machine::in_folder(root.path());
        Self { root, places, machine }
    }

    fn find(&self, choice: HostChoice<'_>) -> Result<HostIdentity, String> {
        find(choice, &self.places, &self.machine).map_err(|error| error.to_string())
    }

    fn found(&self) -> HostIdentity {
        self.find(HostChoice::default()).expect("an identity")
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(name)).ok()
    }
}

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

#[test]
fn the_names_of_nvme_cli_are_used() {
    let scene = Scene::new(&[("nvme/hostnqn", NAMED), ("nvme/hostid", &format!("{ID}\n"))]);
    let found = scene.found();
    assert_eq!((found.nqn.as_str(), found.id.to_string().as_str()), (NAMED, ID));
    assert_eq!(found.notices, [""; 0]);
    assert!(found.nqn_source.ends_with("nvme/hostnqn") && found.id_source.ends_with("hostid"));
    // A name alone has its UUID for an identifier; any other has a derived one, always the same.
    let scene = Scene::new(&[("nvme/hostnqn", NAMED)]);
    assert_eq!(scene.found().id.to_string(), ID);
    let scene = Scene::new(&[("nvme/hostnqn", "nqn.2014-08.com.example:host")]);
    assert_eq!(scene.found(), scene.found());
    assert!(!scene.found().id.is_zero());
}

#[test]
fn names_that_are_absent_are_made_once_and_kept() {
    let scene = Scene::new(&[]);
    let found = scene.found();
    assert_eq!(scene.file("nvme/hostnqn"), Some(format!("{}\n", found.nqn)));
    assert_eq!(scene.file("nvme/hostid"), Some(format!("{}\n", found.id)));
    let mode = |name| {
        let metadata = fs::metadata(scene.root.path().join(name)).expect("there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("nvme/hostnqn"), mode("nvme/hostid")), (0o644, 0o644));
    assert_eq!(fs::read_dir(scene.root.path().join("nvme")).expect("there").count(), 2);
    // The machine may become another; its name stays.
    fs::write(scene.root.path().join("product_uuid"), OTHER).expect("written");
    let again = scene.found();
    assert_eq!((again.nqn, again.id), (found.nqn, found.id));
    assert_eq!(scene.file("state/hostnqn"), None);
}

#[test]
fn who_may_not_write_there_keeps_names_in_the_state_directory() {
    let mut scene = Scene::new(&[]);
    scene.places.may_make_there = false;
    let found = scene.found();
    assert_eq!(scene.file("nvme/hostnqn"), None);
    assert_eq!(scene.file("state/hostnqn"), Some(format!("{}\n", found.nqn)));
    assert_eq!(scene.found().id, found.id);
    // A folder that cannot be made.
    let scene = Scene::new(&[("nvme", "a file")]);
    assert!(scene.found().nqn_source.ends_with("state/hostnqn"));
    // Names of nvme-cli that come later are the machine's from then on.
    let mut scene = Scene::new(&[("state/hostnqn", NAMED), ("nvme/hostnqn", &nvme_name(OTHER))]);
    scene.places.may_make_there = false;
    assert_eq!(scene.found().nqn.as_str(), nvme_name(OTHER));
}

fn nvme_name(uuid: &str) -> String {
    format!("{UUID_PREFIX}{uuid}")
}

#[test]
fn a_new_name_is_made_from_what_the_machine_has() {
    let scene = Scene::new(&[("nvme/hostid", ID), ("product_uuid", OTHER)]);
    assert_eq!(scene.found().nqn.as_str(), NAMED);
    let scene = Scene::new(&[("product_uuid", &OTHER.to_uppercase())]);
    assert_eq!(scene.found().nqn.as_str(), nvme_name(OTHER));
    for none in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
        let scene = Scene::new(&[("product_uuid", none)]);
        let found = scene.found();
        assert_ne!(found.nqn.as_str(), nvme_name(none));
        assert_eq!(found.nqn, Nqn::from_uuid(scene.machine.identifier("forebay host")));
    }
    let mut nowhere = Scene::new(&[("machine-id", "")]);
    (nowhere.places.may_make_there, nowhere.places.state) = (false, None);
    nowhere.machine = Machine::in_folder(Path::new("/nonexistent"));
    assert!(nowhere.found().notices[0].contains("another host after each start"));
}

#[test]
fn options_go_before_files() {
    let scene = Scene::new(&[("nvme/hostnqn", NAMED), ("nvme/hostid", OTHER)]);
    let own = nqn(NAMED);
    let same = scene.find(HostChoice { nqn: Some(&own), id: None }).expect("an identity");
    assert_eq!(same.id.to_string(), OTHER, "the machine's name has the machine's identifier");
    let other = nqn(&nvme_name(OTHER));
    let found = scene.find(HostChoice { nqn: Some(&other), id: None }).expect("an identity");
    assert_eq!((found.id.to_string(), found.notices.len()), (OTHER.to_owned(), 0));
    let id = ID.parse().expect("a UUID");
    let found = scene.find(HostChoice { nqn: Some(&other), id: Some(id) }).expect("an identity");
    assert_eq!((found.nqn, found.id), (other, id));
    let zero = scene.find(HostChoice { nqn: None, id: Some(HostId([0; 16])) });
    assert!(zero.expect_err("nobody").contains("must not be zero"));
}

#[test]
fn an_identifier_that_is_not_the_names_gets_a_warning() {
    let scene = Scene::new(&[("nvme/hostnqn", NAMED), ("nvme/hostid", OTHER)]);
    let found = scene.found();
    assert_eq!(found.id.to_string(), OTHER, "it is used as it is configured");
    let notice = &found.notices[0];
    for part in [OTHER, NAMED, "nvme/hostid", "nvme/hostnqn", "may refuse"] {
        assert!(notice.contains(part), "{notice}");
    }
}

#[test]
fn a_damaged_file_is_named_and_not_passed_over() {
    for (name, text, expected) in [
        ("nvme/hostnqn", "not a name", "an NQN has no spaces"),
        ("nvme/hostnqn", "nqn.2014-08.org.nvmexpress:uuid:123", "32 hexadecimal digits"),
        ("nvme/hostid", "123", "a UUID has 32 hexadecimal digits"),
        ("nvme/hostid", "00000000-0000-0000-0000-000000000000", "must not be zero"),
        ("nvme/hostid", "\u{1b}[2J", "\\u{1b}[2J"),
    ] {
        let scene = Scene::new(&[(name, text)]);
        let error = scene.find(HostChoice::default()).expect_err(text);
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    // Nothing in a file is as good as no file, and it stays as it is.
    let scene = Scene::new(&[("nvme/hostnqn", "\n")]);
    assert!(scene.found().nqn_source.ends_with("state/hostnqn"));
    assert_eq!(scene.file("nvme/hostnqn").as_deref(), Some("\n"));
}
