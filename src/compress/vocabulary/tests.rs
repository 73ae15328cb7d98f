use super::*;
use crate::tokenizer::Rules;
use limbeck_kernels::random::SplitMix64;

/// A packed vocabulary: the special tokens, both forms of the letters of `alphabet`, then `more`.
fn vocabulary(alphabet: &str, more: &[&str]) -> (Vec<String>, WordPiece<Vec<u8>>) {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = alphabet.chars().flat_map(|c| [c.to_string(), format!("##{c}")]);
    let pieces: Vec<String> =
        specials.into_iter().chain(letters).chain(more.iter().map(|piece| piece.to_string())).collect();
    let packed = WordPiece::pack(&pieces, Rules::bert(true)).unwrap();
    (pieces, WordPiece::from_bytes(packed).unwrap())
}

fn counted(vocabulary: &WordPiece<Vec<u8>>, texts: &[&str]) -> Words {
    let (mut words, reading) = (Words::default(), Reading::of(vocabulary));
    texts.iter().for_each(|text| words.add(&vocabulary.encode(text, 512), &reading));
    words
}

fn chosen<'a>(pieces: &'a [String], ids: &[u32]) -> Vec<&'a str> {
    ids.iter().map(|&id| pieces[id as usize].as_str()).collect()
}

#[test]
fn special_tokens_and_characters_stay_then_what_is_used_most() {
    let (pieces, vocabulary) = vocabulary("abcx", &["abc", "ab", "##bc", "cab", "xxx", "."]);
    let words = counted(&vocabulary, &["abc abc abc cab. cab", "abc ab."]);
    // The texts use a, b, c and the full stop; x and xxx are never used, and `##.` cannot be.
    let least = 5 + 6 + 1;
    assert_eq!(choose(&vocabulary, &words, least - 1), Err(TooFew { least }));
    let of = |most: usize| chosen(&pieces, &choose(&vocabulary, &words, most).unwrap()).split_off(11);
    assert_eq!(of(least), ["."]);
    assert_eq!(of(least + 1), ["abc", "."]);
    assert_eq!(of(least + 2), ["abc", "cab", "."]);
    // However much room there is, what is never used goes.
    assert_eq!(of(1000), ["abc", "ab", "cab", "."]);
}

#[test]
fn the_count_of_a_dropped_piece_goes_on_to_its_parts() {
    // Five words of their own end in the same letters, which no text uses as a piece until the words are gone.
    let more = ["aboo", "baoo", "aaoo", "bboo", "abaoo", "##oo", "ooo"];
    let (pieces, vocabulary) = vocabulary("abo", &more);
    let words = counted(&vocabulary, &["aboo aboo baoo aaoo bboo abaoo ooo ooo ooo ooo"]);
    let least = 5 + 6;
    let of = |most: usize| chosen(&pieces, &choose(&vocabulary, &words, most).unwrap()).split_off(least);
    // With room for one: `ooo` is used four times; but `##oo` six times once the words are spelled out.
    assert_eq!(of(least + 1), ["##oo"]);
    assert_eq!(of(least + 2), ["##oo", "ooo"]);
}

/// Texts of nine words of one to seven letters, most of them the first ones of the alphabet.
fn random_texts(random: &mut SplitMix64, count: usize) -> Vec<String> {
    let letter = |random: &mut SplitMix64| char::from(b'a' + (random.below(6) * random.below(6) / 5) as u8);
    let word = |random: &mut SplitMix64| (0..1 + random.below(7)).map(|_| letter(random)).collect::<String>();
    (0..count).map(|_| (0..9).map(|_| word(random)).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn whatever_goes_every_training_word_is_spelled_and_kept_words_as_before() {
    let mut random = SplitMix64::new(7);
    let texts = random_texts(&mut random, 60);
    let mut more: BTreeSet<String> = BTreeSet::new();
    for text in &texts[..40] {
        for word in text.split(' ') {
            let (start, end) = (random.below(word.len()), random.below(word.len()) + 1);
            let piece = &word[start.min(end - 1)..end];
            more.insert(if start == 0 { piece.to_owned() } else { format!("##{piece}") });
            more.insert(word.to_owned());
        }
    }
    let more: Vec<&str> = more.iter().map(String::as_str).filter(|piece| strip(piece).len() > 1).collect();
    let (pieces, whole) = vocabulary("abcdefg", &more);
    let words = counted(&whole, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let least = choose(&whole, &words, 0).unwrap_err().least;
    let mut tokens = u64::MAX;
    for most in [least, least + 5, least + 50, least + 150, 1000] {
        let kept = choose(&whole, &words, most).unwrap();
        assert!(kept.len() <= most && kept.is_sorted());
        let names = chosen(&pieces, &kept);
        let small = WordPiece::from_bytes(WordPiece::pack(&names, whole.rules()).unwrap()).unwrap();
        let (before, after) = (Reading::of(&whole), Reading::of(&small));
        let mut effect = Effect::default();
        for text in &texts {
            let ids = [whole.encode(text, 512), small.encode(text, 512)];
            effect.add([&ids[0], &ids[1]], [&before, &after], &kept, 512);
            let spelled =
                |word: &[u32], names: &dyn Fn(u32) -> String| word.iter().map(|&id| names(id)).collect();
            for (old, new) in before.words(&ids[0]).zip(after.words(&ids[1])) {
                let old_text: String = spelled(old, &|id| strip(&pieces[id as usize]).to_owned());
                let new_text: String = spelled(new, &|id| strip(names[id as usize]).to_owned());
                assert_eq!(old_text, new_text);
                if old.iter().all(|id| kept.contains(id)) {
                    assert!(old.iter().copied().eq(new.iter().map(|&id| kept[id as usize])), "{old_text}");
                }
            }
        }
        assert_eq!(effect.unknown, [0, 0]);
        assert_eq!((effect.words[0], effect.compared), (effect.words[1], effect.words[0]));
        assert!(effect.tokens[1] <= tokens, "more room, longer texts: {effect:?}");
        tokens = effect.tokens[1];
        assert_eq!(effect.respelled == 0, effect.longer() == 0.0);
    }
    assert_eq!(tokens, texts.iter().map(|text| whole.encode(text, 512).len() as u64).sum::<u64>());
}

#[test]
fn an_effect_counts_tokens_words_and_the_unknown() {
    let (_, whole) = vocabulary("abcd", &["abc", "."]);
    let (pieces, _) = vocabulary("abcd", &["abc", "."]);
    // Without the piece abc, and without the letter d.
    let kept: Vec<u32> = (0..whole.vocab() as u32)
        .filter(|&id| !["abc", "d", "##d"].contains(&&*pieces[id as usize]))
        .collect();
    let names = chosen(&pieces, &kept);
    let small = WordPiece::from_bytes(WordPiece::pack(&names, whole.rules()).unwrap()).unwrap();
    let readings = [&Reading::of(&whole), &Reading::of(&small)];
    let mut effect = Effect::default();
    for text in ["abc a.", "ad ü", "abc abc abc abc abc"] {
        let ids = [whole.encode(text, 7), small.encode(text, 7)];
        effect.add([&ids[0], &ids[1]], readings, &kept, 7);
    }
    let expected = Effect {
        texts: 3,
        // [CLS] abc a . [SEP], [CLS] a ##d [UNK] [SEP], 7; then abc is three pieces and ad unknown.
        tokens: [5 + 5 + 7, 7 + 4 + 7],
        words: [3 + 2 + 5, 3 + 2 + 2],
        unknown: [1, 2],
        texts_with_unknown: [1, 1],
        full_texts: [1, 2],
        // Of the first text the full stop may be cut short, of the last the second word is.
        compared: 2 + 2 + 1,
        respelled: 1 + 1 + 1,
    };
    assert_eq!(effect, expected);
    assert!((effect.longer() - 1.0 / 17.0).abs() <= 1e-12);
}
