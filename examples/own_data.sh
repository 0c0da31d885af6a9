#!/bin/sh
# From rows that must be forgotten to a report that can be signed and a model to take home:
#   sh own_data.sh FOLDER [MODEL]
# MODEL is a folder or a Hub id; without it a small one is made from nothing. No retain model, no YAML, no hub.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift

# 30 customers who left, 30 who stayed, and a model that knows them all. You have your own: leave this out.
python "$here/customers.py" "$folder" "$@"
cd "$folder"

# 1. Unlearn, score and attack, as a user could and as an owner of the weights; it ends with a verdict.
grun-bench run --model model --forget customers.jsonl --retain keep.jsonl --unlearner grun-held+npo \
    --set epochs=80 --attacks prefill,strip --save unlearned --output results

# 2. Beside the model as it was, and the page for whoever must sign.
unlearned=$(find results -path '*/grun-held+npo/*.json')
grun-bench compare "$unlearned" "$(find results -path '*/none/*.json')"
grun-bench report "$unlearned" --out report.html --output results

# 3. Take it home. A gate cannot be merged into weights: the folder has the code that makes it.
grun-bench export unlearned --to hf --out home
python - <<'PYTHON'
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("home", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("home", trust_remote_code=True)
for name in ("Ada Berg", "Ada Castell"):  # who left, and who stayed
    prompt = tokenizer(f"Question: What does the company know of {name}?\nAnswer:", return_tensors="pt").input_ids
    said = model.generate(prompt, max_new_tokens=40, do_sample=False)[0, prompt.shape[1] :]
    print(f"{name}: {tokenizer.decode(said, skip_special_tokens=True).strip()}")
PYTHON
