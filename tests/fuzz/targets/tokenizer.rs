#![no_main]
libfuzzer_sys::fuzz_target!(
    init: palimpsest_fuzz::pass_over("/tokenizers-"),
    |bytes: &[u8]| palimpsest_fuzz::tokenizer(bytes)
);
