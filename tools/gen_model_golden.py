#!/usr/bin/env python3
"""Makes tests/golden/smollm2_logits.txt: what PyTorch's transformers computes in f32 for the packaged SmolLM2 on a fixed text.

  gen_model_golden.py MODEL.gguf > tests/golden/smollm2_logits.txt

Needs torch, transformers and gguf. transformers decodes the GGUF's blocks to f32 and knows nothing of this project. The file holds the
token ids, the argmax at every position, and a sample of logits: enough to catch a wrong rotation, norm, head or scale anywhere.
"""
import os, random, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

N, POSITIONS, SAMPLES = 512, 8, 32
TEXT = """The lighthouse at the end of the causeway had been dark for eleven years when Marta Oyelaran bought it, and the people of the town
said, politely and to her face, that she had paid too much. She did not mind. She had grown up beside a river that moved its bed every spring,
and had learned early that the price of a thing is a kind of weather: it tells you about the day, and very little about the land.

The first winter she repaired the stairs. There were 214 of them, cut from grey stone, and each had been worn in the middle by feet that were
now under other stones, higher up the hill. She measured every step and wrote the numbers in a school notebook: 18.2 cm, 18.0 cm, 17.7 cm, and
so on, up to the lamp room, where the last step was only 15 cm high because the builder had run out of tower.

"You count things," said the boy who brought the post. "Why do you count things?"

"So that I know when something is missing," she said.

He thought about this while he tied his dog to the gate. His name was Ilya; he was nine, and he was the only visitor who never asked what she
was going to do with the place. In February he helped her carry glass. In March they cleaned the lens, which was made of 1,008 prisms in brass
frames, and found that three were missing. They wrote to a museum in Lisbon, to a glass works near Prague, and to a man in Maine who answered
by return: he had two of them, and would exchange them for a good photograph of the tower at night, with the light on.

This was, Ilya said, a circular problem. Without the prisms there was no light, without the light no photograph, without the photograph no
prisms. Marta agreed that it was circular. Then she took a sheet of plywood, painted it white, and cut three wedges to close the gaps; they
would throw no light, but they would keep out the wind. On the evening of the 2nd of May she started the motor. The lens turned, slowly at
first, and a beam with three dark notches in it walked out over the water, over the harbour and the fish market, over the school and the hill,
and came back, and went round again. People stood in their doors. Nobody said anything about the price.

The photograph is in the museum now. If you look closely you can see the notches, and, on the balcony, two very small figures and a dog. The
function that describes the beam is simple: f(t) = A cos(2 pi t / T), with T = 24 seconds. But if you ask anyone in the town, they will tell you
that it is not simple at all.
"""


def main():
    folder, name = os.path.split(os.path.abspath(sys.argv[1]))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][:N]
    assert len(ids) == N, len(ids)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    pick = random.Random(1)
    print("# transformers, f32, on the dequantized smollm2-135m-instruct; made by tools/gen_model_golden.py")
    print("ids", *ids)
    print("argmax", *logits.argmax(-1).tolist())
    for position in [0, 1, *sorted(pick.sample(range(2, N - 1), POSITIONS - 3)), N - 1]:
        sample = sorted(pick.sample(range(logits.shape[1]), SAMPLES))
        print("logits", position, *(f"{i}:{logits[position, i].item():.6f}" for i in sample))


main()
