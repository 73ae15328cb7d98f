//! A corpus that needs no file and no network: short notes on four topics, made from a seed.
//!
//! A note is a sentence on its topic, in the topic's words or in words that several topics share, and often
//! an aside on another topic (`"while …, "`, `", though …"`, `"not …, but "`). Counting words therefore gets
//! most notes right and not all; order tells which part is the aside, which is what attention can learn. A
//! few notes have shared words only, so that no model gets all of them.

use super::Example;
use limbeck_kernels::random::SplitMix64;
use std::collections::{BTreeSet, HashSet};

/// A generated corpus and the vocabulary for it.
pub struct Demo {
    /// Notes to train on.
    pub train: Vec<Example>,
    /// Notes to test on; none of them is in `train`.
    pub test: Vec<Example>,
    /// Names of the topics, in the order of the labels.
    pub labels: Vec<String>,
    /// A WordPiece vocabulary by id: the special tokens, every character alone and inside of a word, and
    /// the words of the training notes.
    pub pieces: Vec<String>,
}

/// Words of one topic, each list separated by commas.
struct Topic {
    name: &'static str,
    people: &'static str,
    verbs: &'static str,
    things: &'static str,
    places: &'static str,
}

const TOPICS: [Topic; 4] = [
    Topic {
        name: "Cooking",
        people: "chef, baker, cook, waiter, butcher, pastry maker, host, brewer, farmer, guest",
        verbs: "baked, stirred, seasoned, fried, tasted, chopped, roasted, simmered, peeled, served",
        things: "onion soup, rye bread, garlic sauce, lemon cake, fish stew, apple pie, pepper, \
            noodles, goat cheese, roast lamb, olive oil, pickled plums, rice, mushrooms, honey, \
            pancakes",
        places: "kitchen, bakery, tavern, pantry, dining room, bistro, food market, canteen",
    },
    Topic {
        name: "Sailing",
        people: "skipper, sailor, helmsman, navigator, deckhand, harbour master, shipwright, diver, \
            pilot, crew",
        verbs: "moored, hoisted, steered, anchored, rigged, trimmed, launched, towed, reefed, \
            caulked",
        things: "mainsail, wooden ketch, rudder, anchor chain, spinnaker, dinghy, mast, lifeboat, \
            compass, keel, jib, mooring rope, lantern buoy, tiller, winch, old schooner",
        places: "harbour, estuary, open sea, dry dock, lagoon, lighthouse, marina, strait",
    },
    Topic {
        name: "Music",
        people: "violinist, drummer, conductor, singer, pianist, composer, choir, cellist, organist, \
            band",
        verbs: "rehearsed, composed, tuned, hummed, conducted, sang, improvised, recorded, \
            strummed, transposed",
        things: "sonata, slow waltz, brass fanfare, lullaby, second symphony, guitar, chorus, \
            string quartet, old ballad, melody, trumpet solo, hymn, overture, drum kit, \
            jazz standard, harp",
        places: "concert hall, studio, opera house, rehearsal room, chapel, festival, theatre, \
            jazz club",
    },
    Topic {
        name: "Gardening",
        people: "gardener, florist, beekeeper, botanist, forester, landscaper, seed seller, \
            apprentice, neighbour, groundskeeper",
        verbs: "planted, watered, pruned, weeded, grafted, raked, mulched, trimmed, sowed, dug up",
        things: "rose bushes, tulip bulbs, hedge, apple tree, compost heap, seedlings, lawn, ivy, \
            lavender, pear orchard, moss, tomato vines, fern, wild thyme, onion beds, \
            oak sapling",
        places: "greenhouse, orchard, flower bed, nursery, allotment, meadow, vineyard, back garden",
    },
];

/// People, verbs and things that say nothing about the topic, or belong to several.
const SHARED: Topic = Topic {
    name: "",
    people: "team, old man, young woman, visitor, neighbour, apprentice, owner, whole family, \
            stranger",
    verbs: "prepared, brought, checked, finished, looked after, photographed, admired, sold, \
            trimmed, opened",
    things: "key, bass, scales, basket, thyme, shells, notes, stock, pots, horn, new batch, \
            strings, rolls",
    places: "village, old town, courtyard, square, workshop, hills, market, house",
};

const TIMES: &str = "on monday, this morning, before dawn, last week, after the storm, at noon, for two hours, \
    in early spring, yesterday, once more, with great care, in a hurry, for the first time, all summer";

/// How often the sentence of a note takes a part from the shared words, in percent.
const SHARED_PERCENT: u64 = 30;
/// How often a note has an aside, in percent.
const ASIDE_PERCENT: u64 = 40;

/// The draws that a note is made of.
struct Random(SplitMix64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0.below(limit)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent as usize
    }

    /// One of a list's items.
    fn pick(&mut self, list: &'static str) -> &'static str {
        let items = || list.split(", ");
        items().nth(self.below(items().count())).expect("below their number")
    }
}

/// Makes `train` and `test` notes, all different, the topics in turn and then shuffled. A function of its
/// arguments.
///
/// # Panics
/// If more than a million notes are asked for, which the word lists may not make.
pub fn generate(seed: u64, train: usize, test: usize) -> Demo {
    assert!(train + test <= 1_000_000, "the word lists do not make so many different notes");
    let mut random = Random(SplitMix64::new(seed));
    let mut seen = HashSet::new();
    let mut examples = Vec::with_capacity(train + test);
    while examples.len() < train + test {
        let label = examples.len() % TOPICS.len();
        let text = note(&mut random, label);
        if seen.insert(text.clone()) {
            examples.push(Example { label, text });
        }
    }
    for end in (1..examples.len()).rev() {
        examples.swap(end, random.below(end + 1));
    }
    let test = examples.split_off(train);
    let pieces = pieces(&examples);
    Demo { train: examples, test, labels: TOPICS.map(|topic| topic.name.to_owned()).to_vec(), pieces }
}

/// A note on a topic, perhaps with an aside on another one.
fn note(random: &mut Random, topic: usize) -> String {
    let main = sentence(random, &TOPICS[topic]);
    if !random.percent(ASIDE_PERCENT) {
        return format!("{main}.");
    }
    let other = &TOPICS[(topic + 1 + random.below(TOPICS.len() - 1)) % TOPICS.len()];
    match random.below(4) {
        0 => format!("while {}, {main}.", aside(random, other)),
        1 => format!("{main}, though {}.", aside(random, other)),
        2 => format!("not in the {} but nearby, {main}.", random.pick(other.places)),
        _ => format!("{main}, and not the {}.", random.pick(other.things)),
    }
}

fn sentence(random: &mut Random, topic: &Topic) -> String {
    let mut part = |own: &'static str, shared: &'static str| {
        if random.percent(SHARED_PERCENT) { random.pick(shared) } else { random.pick(own) }
    };
    let person = part(topic.people, SHARED.people);
    let verb = part(topic.verbs, SHARED.verbs);
    let thing = part(topic.things, SHARED.things);
    let place = part(topic.places, SHARED.places);
    let time = random.pick(TIMES);
    match random.below(4) {
        0 => format!("the {person} {verb} the {thing} in the {place} {time}"),
        1 => format!("{time} the {person} {verb} the {thing}"),
        2 => format!("in the {place} a {person} {verb} {} of the {thing}", 2 + random.below(90)),
        _ => format!("{time} the {thing} was {verb} by the {person} near the {place}"),
    }
}

fn aside(random: &mut Random, topic: &Topic) -> String {
    let (person, verb, thing) =
        (random.pick(topic.people), random.pick(topic.verbs), random.pick(topic.things));
    if random.percent(50) { format!("the {person} {verb} the {thing}") } else { format!("a {person} waited") }
}

/// The vocabulary: specials, characters, continuing characters, words.
fn pieces(examples: &[Example]) -> Vec<String> {
    let separated = |c: char| !c.is_alphanumeric();
    let words: BTreeSet<&str> = examples
        .iter()
        .flat_map(|example| example.text.split(separated))
        .filter(|word| word.len() > 1)
        .collect();
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let punctuation = ('!'..='~').filter(char::is_ascii_punctuation).map(String::from);
    let alphanumeric = || ('0'..='9').chain('a'..='z');
    let inside = alphanumeric().map(|c| format!("##{c}"));
    let mut pieces: Vec<String> =
        specials.into_iter().chain(punctuation).chain(alphanumeric().map(String::from)).collect();
    pieces.extend(inside);
    // Numbers are spelled by their digits.
    pieces.extend(
        words.into_iter().filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned),
    );
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{Rules, Tokenizer};

    #[test]
    fn a_seed_makes_a_corpus() {
        let demo = generate(7, 6_000, 1_000);
        assert_eq!((demo.train.len(), demo.test.len(), demo.labels.len()), (6_000, 1_000, 4));
        assert!(generate(7, 6_000, 1_000).train == demo.train);
        assert!(generate(8, 6_000, 1_000).train != demo.train);
        let train: HashSet<&str> = demo.train.iter().map(|example| example.text.as_str()).collect();
        assert_eq!(train.len(), 6_000);
        assert!(demo.test.iter().all(|example| !train.contains(example.text.as_str())));
        for label in 0..4 {
            let count = demo.test.iter().filter(|example| example.label == label).count();
            assert!((200..=300).contains(&count), "{count} notes of class {label}");
        }
    }

    #[test]
    fn the_vocabulary_covers_it() {
        let demo = generate(7, 6_000, 1_000);
        let tokenizer = Tokenizer::from_pieces(&demo.pieces, Rules::bert(true)).unwrap();
        assert_eq!(tokenizer.vocab(), demo.pieces.len());
        assert!(demo.pieces.len() < 1_000, "{} pieces", demo.pieces.len());
        for example in demo.train.iter().chain(&demo.test) {
            let ids = tokenizer.encode(&example.text, 64);
            assert!(!ids.contains(&1), "unknown in {}", example.text);
            assert!(ids.len() < 48, "{}", example.text);
        }
    }

    /// Naive Bayes over words, which sees no order: the corpus should be neither trivial for it nor beyond
    /// it.
    #[test]
    fn counting_words_is_not_enough() {
        let demo = generate(7, 6_000, 1_000);
        let words = |text: &str| -> Vec<usize> {
            let place = |word: &str| demo.pieces.iter().position(|piece| piece == word);
            text.split(|c: char| !c.is_alphanumeric()).filter_map(place).collect()
        };
        let mut counts = vec![[1.0_f64; 4]; demo.pieces.len()];
        for example in &demo.train {
            words(&example.text).into_iter().for_each(|word| counts[word][example.label] += 1.0);
        }
        let totals: [f64; 4] = std::array::from_fn(|label| counts.iter().map(|count| count[label]).sum());
        let right = demo.test.iter().filter(|example| {
            let found = words(&example.text);
            let score = |label: usize| {
                found.iter().map(|&word| (counts[word][label] / totals[label]).ln()).sum::<f64>()
            };
            (0..4).max_by(|&a, &b| score(a).total_cmp(&score(b))) == Some(example.label)
        });
        let right = right.count();
        println!("naive Bayes: {right} of 1000");
        assert!((850..=960).contains(&right), "{right} of 1000");
    }
}
