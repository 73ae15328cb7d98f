//! Holds the code to the order of rooms that `src/lib.rs` gives, and to the rule that kernels depend on
//! nothing. Cargo keeps the packages apart; this keeps the rooms inside the library apart.
//!
//! Inside a room, files use each other in one direction: a circle of them is one file that nobody can read alone.
//!
//! What is read: every `crate::…` and `super::…` path in `src/`, outside comments and outside tests (a room's tests may use
//! whatever helps them).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A room, as `nn` or `models::config`, and where it stands: two rooms of the same layer are neighbours if
/// their branch is the same, and strangers if it is not.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    path: String,
    layer: usize,
    branch: usize,
}

/// Reads the list from the text block of `src/lib.rs`.
fn rooms(lib: &str) -> Vec<Room> {
    let doc: Vec<&str> = lib.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let block = doc.iter().skip_while(|line| line.trim() != "```text").skip(1);
    let list: Vec<&str> = block.take_while(|line| line.trim() != "```").map(|line| line.trim()).collect();
    let mut rooms = Vec::new();
    for (layer, names) in list.join(" ").split('→').enumerate() {
        for (branch, names) in names.split('|').enumerate() {
            let paths = names.split('·').map(str::trim).filter(|name| !name.contains([' ', '-']));
            rooms.extend(paths.map(|path| Room { path: path.to_owned(), layer, branch }));
        }
    }
    rooms
}

/// The room that the path `a::b::c` lies in: the longest that it begins with.
fn room_of<'a>(rooms: &'a [Room], path: &str) -> Option<&'a Room> {
    let inside = |room: &&Room| path == room.path || path.starts_with(&format!("{}::", room.path));
    rooms.iter().filter(inside).max_by_key(|room| room.path.len())
}

fn may_use(user: &Room, used: &Room) -> bool {
    used.layer < user.layer || (used.layer == user.layer && used.branch == user.branch)
}

/// Every `.rs` file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}

/// `src/nn/mod.rs` as `nn`, `src/models/config.rs` as `models::config`.
fn module(path: &Path) -> String {
    module_below(&Path::new(ROOT).join("src"), path)
}

/// As [`module`], in another package, whose sources are below `root`.
fn module_below(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap().with_extension("");
    let parts: Vec<&str> =
        inside.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    parts.join("::")
}

/// A file's text without comments, and without its `#[cfg(test)] mod`, which by custom comes last.
fn code(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let test = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    lines.truncate(test.unwrap_or(lines.len()));
    let kept: Vec<&str> = lines.iter().map(|line| line.split("//").next().unwrap()).collect();
    kept.join("\n")
}

/// Every path that the code of `module` begins with `crate::` or `super::`, groups in braces spelled out:
/// `crate::{a, b::{c, d}}` names `a`, `b::c` and `b::d`.
fn paths(module: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let (mut folder, mut rest) = ("", &code[at + start.len()..]);
        if start == "super::" {
            let parent = |module: &str| module.rfind("::").unwrap_or(0);
            folder = &module[..parent(module)];
            while let Some(above) = rest.strip_prefix(start) {
                (folder, rest) = (&folder[..parent(folder)], above);
            }
        }
        expand(folder, rest, &mut found);
    }
    found
}

/// Adds the paths at the beginning of `text` to `found`, each behind `prefix`; returns what follows them.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => rest = expand(prefix, rest, found),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(rest) => expand(&path, rest, found),
        None => {
            found.insert(path);
            // `name as other`, or a character that belongs to no path: the caller's loop must get on.
            let next = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
            if end == 0 && next == 0 { rest.get(1..).unwrap_or("") } else { &rest[next..] }
        }
    }
}

#[test]
fn rooms_use_only_what_stands_before_them() {
    let lib = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let rooms = rooms(&lib);
    assert!(rooms.len() >= 12, "the list in src/lib.rs was not found: {rooms:?}");
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for file in sources(&Path::new(ROOT).join("src")) {
        let module = module(&file);
        if module == "lib" || module.ends_with("tests") {
            continue;
        }
        let Some(user) = room_of(&rooms, &module) else {
            wrong.push(format!("{} is in no room of the list in src/lib.rs", file.display()));
            continue;
        };
        for path in paths(&module, &code(&fs::read_to_string(&file).unwrap())) {
            // Names that lib.rs lifts out of their rooms, such as Error, stand in none and are free to all.
            let Some(used) = room_of(&rooms, &path) else { continue };
            arrows += 1;
            if !may_use(user, used) {
                wrong.push(format!("{module} uses {path}: {} may not use {}", user.path, used.path));
            }
        }
    }
    assert!(arrows >= 20, "only {arrows} arrows were found; is the test reading the sources?");
    assert!(wrong.is_empty(), "arrows that point back:\n{}", wrong.join("\n"));
}

/// What the files of a room lift out of their own modules: `ranks::Tcp` is `ranks::tcp::Tcp`, by `pub use tcp::Tcp;` in
/// `src/ranks/mod.rs`.
fn lifted(root: &Path, files: &[PathBuf]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in files {
        let (room, text) = (module_below(root, file), code(&fs::read_to_string(file).unwrap()));
        for start in ["pub use ", "pub(crate) use ", "pub(super) use "] {
            for (at, _) in text.match_indices(&format!("\n{start}")) {
                let mut paths = BTreeSet::new();
                expand("", &text[at + 1 + start.len()..], &mut paths);
                for path in
                    paths.iter().filter(|path| !path.starts_with("crate") && !path.starts_with("super"))
                {
                    let name = path.rsplit("::").next().unwrap();
                    found.insert(format!("{room}::{name}"), format!("{room}::{path}"));
                }
            }
        }
    }
    found
}

/// The path with whatever its room lifts put back where it is from: `ranks::Tcp::join` is `ranks::tcp::Tcp::join`.
fn put_back(lifted: &BTreeMap<String, String>, path: &str) -> String {
    let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
    let known = ends.filter_map(|end| Some((end, lifted.get(&path[..end])?))).last();
    known.map_or_else(|| path.to_owned(), |(end, real)| format!("{real}{}", &path[end..]))
}

/// By folder, which of its files and folders uses which, of the sources below `root`.
fn arrows(root: &Path) -> BTreeMap<String, BTreeSet<[String; 2]>> {
    let files = sources(root);
    let modules: BTreeSet<String> = files.iter().map(|file| module_below(root, file)).collect();
    let lifted = lifted(root, &files);
    let mut arrows: BTreeMap<String, BTreeSet<[String; 2]>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let user = module_below(root, file);
        for path in paths(&user, &code(&fs::read_to_string(file).unwrap())) {
            let path = put_back(&lifted, &path);
            let [user, used] = [&user, &path].map(|path| path.split("::").collect::<Vec<_>>());
            let common = user.iter().zip(&used).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (user.get(common), used.get(common)) else { continue };
            if modules.contains(&used[..=common].join("::")) {
                let arrow = [from, to].map(|name| name.to_string());
                arrows.entry(user[..common].join("::")).or_default().insert(arrow);
            }
        }
    }
    arrows
}

/// What is in circles, or between them: what uses nothing is in none, nor is then what uses only that, nor what nobody uses.
fn circles(mut arrows: BTreeSet<[String; 2]>) -> BTreeSet<[String; 2]> {
    loop {
        let before = arrows.len();
        let users: BTreeSet<String> = arrows.iter().map(|[user, _]| user.clone()).collect();
        let used: BTreeSet<String> = arrows.iter().map(|[_, used]| used.clone()).collect();
        arrows.retain(|[from, to]| users.contains(to) && used.contains(from));
        if arrows.len() == before {
            return arrows;
        }
    }
}

#[test]
fn files_of_a_room_use_each_other_in_one_direction() {
    let lifted = lifted(&Path::new(ROOT).join("src"), &sources(&Path::new(ROOT).join("src")));
    assert_eq!(put_back(&lifted, "ranks::Tcp::join"), "ranks::tcp::Tcp::join");
    let mut wrong = Vec::new();
    for (root, least) in [("src", "stages"), ("tools/src", "commands::sweep")] {
        let arrows = arrows(&Path::new(ROOT).join(root));
        assert!(arrows[least].len() >= 5, "is the test reading the sources?");
        // Which rooms may use which, lib.rs says.
        for (folder, arrows) in arrows.into_iter().filter(|(folder, _)| root != "src" || !folder.is_empty()) {
            let found = circles(arrows);
            if !found.is_empty() {
                wrong.push(format!("{root}/{folder}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "in circles are:\n{}", wrong.join("\n"));
}

/// Rooms of the inference build use none that is there only to train.
#[test]
fn deployment_knows_nothing_of_training() {
    let lib = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let mut gated = BTreeSet::new();
    for lines in lib.lines().collect::<Vec<_>>().windows(2) {
        let name = lines[1].rsplit(' ').next().unwrap().trim_end_matches(';');
        if lines[0] == "#[cfg(feature = \"train\")]" && lines[1].contains("mod ") {
            gated.insert(name);
        }
    }
    assert!(gated.contains("ops") && gated.len() >= 10, "{gated:?}");
    let mut files = 0;
    for file in sources(&Path::new(ROOT).join("src")) {
        let module = module(&file);
        if !["infer", "nn", "models", "tokenizer"].contains(&module.split("::").next().unwrap()) {
            continue;
        }
        files += 1;
        for path in paths(&module, &code(&fs::read_to_string(&file).unwrap())) {
            let used = path.split("::").next().unwrap();
            assert!(!gated.contains(used), "{module} uses {path}");
        }
    }
    assert!(files >= 20, "is the test reading the sources?");
}

/// The entries of all `[dependencies]` tables of a manifest, also those for one target. Read by hand, so that
/// this test needs no feature of the library.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            let name = line.trim_matches(['[', ']']);
            let own = name.strip_prefix("dependencies.");
            inside =
                name == "dependencies" || (name.starts_with("target.") && name.ends_with(".dependencies"));
            found.extend(own);
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            found.push(line);
        }
    }
    found
}

#[test]
fn kernels_depend_on_nothing() {
    let manifest = fs::read_to_string(Path::new(ROOT).join("kernels/Cargo.toml")).unwrap();
    assert!(manifest.contains("[package]"));
    assert_eq!(dependencies(&manifest), [""; 0]);
    let four = "[dependencies]\na = 1\n# no\n[dependencies.b]\nversion = 1\n[dev-dependencies]\nno = 1\n\
                [target.'cfg(unix)'.dependencies]\nc = 1\n[dependencies]\nd = 1";
    assert_eq!(dependencies(four).len(), 4);
}

#[test]
fn the_reader_reads() {
    let text = "use crate::{Error, ops::{linear, norm as n}, nn::Exec};\nlet x = crate::train::Step { a };\n\
                // crate::report\npub(crate) fn f(g: &crate::infer::Session) {}\n#[cfg(test)]\nmod tests {\nuse crate::stages;";
    let found: Vec<String> = paths("a::b", &code(text)).into_iter().collect();
    assert_eq!(found, ["Error", "infer::Session", "nn::Exec", "ops::linear", "ops::norm", "train::Step"]);
    let found: Vec<String> =
        paths("a::b", "use super::{c, d::E}; super::super::f::g()").into_iter().collect();
    assert_eq!(found, ["a::c", "a::d::E", "f::g"]);
    let rooms = rooms("//! x\n//! ```text\n//! a-b → a · b → a::c\n//!     → d | e → the end\n//! ```\n");
    let room = |path| room_of(&rooms, path).unwrap();
    assert_eq!((room("a::x").path.as_str(), room("a::c::y").path.as_str()), ("a", "a::c"));
    assert!(may_use(room("a"), room("b")) && may_use(room("d"), room("a::c")));
    assert!(
        !may_use(room("a"), room("a::c")) && !may_use(room("d"), room("e")) && !may_use(room("b"), room("d"))
    );
}
