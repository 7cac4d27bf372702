//! Reads bytes that the TypeScript codec wrote (`fixtures/write.mjs`), and bytes that nobody wrote.

use heliostat_proto::blob::{BlobView, plain};
use heliostat_value::{Header, Plain, ReadError, StorageBytes, Text, ViewKind, decode};
use proptest::prelude::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name, ".bin"))
    };
}

fn read(bytes: &[u8]) -> Plain<'_> {
    decode(&BlobView::parse(bytes).unwrap()).unwrap()
}

fn members<'a, 'b>(value: &'b Plain<'a>) -> Vec<(String, &'b Plain<'a>)> {
    let Plain::Object(members) = value else { panic!("{value:?} is no object") };
    members.iter().map(|(key, value)| (key.to_text().unwrap(), value)).collect()
}

fn member<'a, 'b>(value: &'b Plain<'a>, name: &str) -> &'b Plain<'a> {
    members(value).into_iter().find(|(key, _)| key == name).expect(name).1
}

#[test]
fn primitives_are_read_exactly() {
    let Plain::Array(values) = read(fixture!("primitives")) else { panic!() };
    let numbers: Vec<f64> =
        values.iter().filter_map(|v| if let Plain::Number(n) = v { Some(*n) } else { None }).collect();
    assert_eq!(values[..4], [Plain::Undefined, Plain::Null, Plain::Bool(true), Plain::Bool(false)]);
    let expected = [0.0, -0.0, 127.0, 128.0, -1.0, 2_147_483_647.0, -2_147_483_648.0, 1.5, 9_007_199_254_740_992.0];
    assert_eq!(numbers[..9].iter().map(|n| n.to_bits()).collect::<Vec<_>>(), expected.map(f64::to_bits));
    assert!(numbers[9].is_nan() && numbers.len() == 10);
    assert_eq!(values[14], Plain::BigInt { negative: false, magnitude: &[0] });
    assert_eq!(values[15], Plain::BigInt { negative: true, magnitude: &[0x40, 0, 0, 0, 0, 0, 0, 0, 0] });
    let texts: Vec<Text<'_>> =
        values.iter().filter_map(|v| if let Plain::String(t) = v { Some(*t) } else { None }).collect();
    assert!(texts[0] == *"plain" && texts[1] == *"é" && texts[2] == *"日本");
    assert_eq!(texts[3].to_text(), None, "a lone surrogate is no text");
    assert_eq!((texts[3].to_string().as_str(), texts[3].units().collect::<Vec<_>>()), ("\u{fffd}", vec![0xd800]));
}

#[test]
fn long_texts_are_read_from_the_buffers_beside_the_header() {
    let bytes = fixture!("texts");
    let value = read(bytes);
    let Plain::String(narrow @ Text::Latin1(units)) = member(&value, "narrow") else { panic!() };
    assert!(bytes.as_ptr_range().contains(&units.as_ptr()), "it is borrowed");
    assert_eq!((units.len(), narrow.units().last()), (262_145, Some(0xe9)));
    let Plain::String(wide @ Text::Utf16(_)) = member(&value, "wide") else { panic!() };
    assert_eq!((wide.units().count(), wide.to_text()), (131_073, None), "a lone surrogate survives");
    assert_eq!(wide.units().take(3).collect::<Vec<_>>(), [0x65e5, 0x78, 0x65e5]);
    assert!(matches!(member(&value, "between"), Plain::String(text) if *text == *"short"));
    assert!(BlobView::parse(bytes).unwrap().header().len() < 100);
}

#[test]
fn objects_arrays_and_their_shared_shapes_are_read() {
    let value = read(fixture!("objects"));
    assert_eq!(
        members(&value).iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["name", "list", "empty", "numbers"]
    );
    let Plain::Array(list) = member(&value, "list") else { panic!() };
    for (object, (id, ok)) in list.iter().zip([(1.0, true), (2.0, false)]) {
        assert_eq!((member(object, "id"), member(object, "ok")), (&Plain::Number(id), &Plain::Bool(ok)));
    }
    assert_eq!(member(&value, "empty"), &Plain::Object(vec![]));
    let Plain::Numbers(numbers) = member(&value, "numbers") else { panic!() };
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [0.5, -2.5, 3.0]);
    let dictionary = read(fixture!("dictionary"));
    assert_eq!(members(&dictionary).len(), 70);
    assert_eq!(member(&dictionary, "key 69"), &Plain::Number(69.0));
}

#[test]
fn collections_and_cycles_are_read() {
    let value = read(fixture!("collections"));
    let Plain::Map(entries) = member(&value, "map") else { panic!() };
    assert!(matches!(&entries[..], [(Plain::String(key), Plain::Number(1.0))] if *key == *"a"));
    assert!(matches!(member(&value, "set"), Plain::Set(items) if items.len() == 2 && items[0] == Plain::Number(2.0)));
    assert_eq!(member(&value, "date"), &Plain::Date(86_400_000.0));
    assert!(matches!(member(&value, "sparse"), Plain::SparseArray { length: 4, elements } if elements[0].0 == 3));
    let cycle = read(fixture!("cycle"));
    assert_eq!(member(&cycle, "self"), &Plain::Same(0));
    assert_eq!(member(&cycle, "twice"), &Plain::Array(vec![Plain::Same(0)]));
}

#[test]
fn views_are_borrowed_from_their_buffers() {
    let bytes = fixture!("buffers");
    let blob = BlobView::parse(bytes).unwrap();
    let header = Header::parse(&blob).unwrap();
    assert!(!header.code && !header.modules);
    assert_eq!(header.storages[0].bytes, StorageBytes::OutOfBand(0));
    assert_eq!(header.storages[0].length, 4000);
    let value = decode(&blob).unwrap();
    let expected: Vec<u8> = (0u16..2000).flat_map(u16::to_le_bytes).collect();
    assert_eq!(member(&value, "pixels"), &Plain::View(ViewKind::Uint16Array, &expected));
    let Plain::View(ViewKind::Uint16Array, part) = member(&value, "part") else { panic!() };
    assert_eq!(part, &&expected[20..24]);
    assert!(bytes.as_ptr_range().contains(&part.as_ptr()), "nothing is copied");
    let small = [1.0f64, 2.0].map(f64::to_le_bytes).concat();
    assert_eq!(member(&value, "small"), &Plain::View(ViewKind::Float64Array, &small));
    assert_eq!(member(&value, "raw"), &Plain::Buffer(&[7, 8, 9]));
}

#[test]
fn what_only_javascript_can_rebuild_is_told() {
    let code = BlobView::parse(fixture!("code")).unwrap();
    assert!(Header::parse(&code).unwrap().code);
    assert!(matches!(decode(&code), Err(ReadError::NotPlain { tag: 0x30, .. })));
    let error = BlobView::parse(fixture!("error")).unwrap();
    assert!(matches!(decode(&error), Err(ReadError::NotPlain { tag: 0x15, .. })));
    let version = plain(&[9, 0, 0, 0, 0, 0, 0]);
    assert_eq!(decode(&BlobView::parse(&version).unwrap()), Err(ReadError::Version(9)));
    let mut nested = vec![2, 0, 0, 0, 0, 0];
    nested.extend([0x0e, 1].repeat(100_000));
    nested.push(0);
    let nested = plain(&nested);
    assert!(matches!(decode(&BlobView::parse(&nested).unwrap()), Err(ReadError::TooDeep(_))));
}

const FIXTURES: [&[u8]; 8] = [
    fixture!("primitives"),
    fixture!("objects"),
    fixture!("dictionary"),
    fixture!("collections"),
    fixture!("buffers"),
    fixture!("cycle"),
    fixture!("code"),
    fixture!("error"),
];

/// Reads whatever it is; a result of any kind will do.
fn attempt(bytes: &[u8]) {
    if let Ok(blob) = BlobView::parse(bytes) {
        let _ = Header::parse(&blob);
        let _ = decode(&blob);
    }
}

#[test]
fn cut_bytes_are_refused() {
    for whole in FIXTURES {
        let header = BlobView::parse(whole).unwrap().header();
        for length in 0..header.len() {
            let cut = plain(&header[..length]);
            assert!(decode(&BlobView::parse(&cut).unwrap()).is_err(), "cut at {length}");
            attempt(&whole[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn altered_bytes_do_no_harm(
        fixture in 0..FIXTURES.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = FIXTURES[fixture].to_vec();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        attempt(&bytes);
    }

    #[test]
    fn bytes_that_nobody_wrote_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..300), tables in 0u32..320, flags in 0u8..4) {
        let mut header = vec![2, flags];
        header.extend(tables.to_le_bytes());
        header.extend(body);
        attempt(&plain(&header));
    }
}
