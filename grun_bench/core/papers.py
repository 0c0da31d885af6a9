"""Papers that docstrings name by their number on arXiv, as BibTeX. No torch.

A docstring says the number, `arXiv 2404.05868`, and nothing else has to be done. Title and authors of those that the
package names stand here once. Of any other paper the entry has what its number says and no more.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from grun_bench.core.escaping import accents_set

#: a paper's number, alone or after "arXiv"
NUMBER = re.compile(r"(?<![\w/.])(?:arXiv:? ?)?(\d{4}\.\d{5})(?![\d.]\d)\b")
#: words that say nothing as the first of a title
_SMALL = frozenset({"a", "an", "the", "on", "of"})


@dataclass(frozen=True)
class Paper:
    """A paper on arXiv. `title` and `authors` (as BibTeX has them, `and` between) are "" where they are not known."""

    number: str
    title: str = ""
    authors: str = ""

    @property
    def year(self) -> str:
        """Of its first version, as its number says."""
        return f"20{self.number[:2]}"

    @property
    def key(self) -> str:
        """`zhang2024negative`: the first author, the year and the title's first word; else its number."""
        if not self.title or not self.authors:
            return f"arxiv{self.number}"
        said = [re.sub(r"[^a-z0-9]", "", _plain(word)) for word in re.split(r"[\s:-]+", self.title)]
        first = next(word for word in said if word and word not in _SMALL)
        return f"{re.sub('[^a-z]', '', _plain(self.authors.partition(',')[0]))}{self.year}{first}"

    @property
    def address(self) -> str:
        return f"https://arxiv.org/abs/{self.number}"

    def words(self) -> str:
        """The paper in a line: authors, year, title, number."""
        people = [name.partition(",")[0] for name in self.authors.split(" and ") if name]
        said = f"{people[0]} et al." if len(people) > 2 else " and ".join(people)
        return ", ".join(filter(None, [f"{said} ({self.year})".strip(), self.title, f"arXiv {self.number}"]))

    def bibtex(self) -> str:
        """Its entry, in ASCII as far as accents go."""
        fields = {
            "title": _braced(self.title).replace("%", "\\%"),
            "author": self.authors,
            "year": self.year,
            "eprint": self.number,
        }
        fields |= {"archiveprefix": "arXiv", "url": self.address}
        lines = [f"  {name:<13} = {{{accents_set(value)}}}," for name, value in fields.items() if value]
        return "\n".join([f"@misc{{{self.key},", *lines, "}"])


def numbers(text: str) -> list[str]:
    """The numbers of the papers that a text names, in its order."""
    return list(dict.fromkeys(NUMBER.findall(text)))


def paper(number: str) -> Paper:
    """The paper of this number, with what is known of it."""
    return Paper(number, *_KNOWN.get(number, ("", "")))


def _plain(text: str) -> str:
    """Lower case without accents."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)).lower()


def _braced(title: str) -> str:
    """Names whose capitals a style must not change, in braces: those with a capital behind the first letter."""
    return re.sub(r"[^\s:]*[^\s:{][A-Z][^\s:]*", lambda found: f"{{{found[0]}}}", title)


#: number -> title and authors, of the papers that the package's docstrings name
_KNOWN: dict[str, tuple[str, str]] = {
    "1709.01604": (
        "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting",
        "Yeom, Samuel and Giacomelli, Irene and Fredrikson, Matt and Jha, Somesh",
    ),
    "1809.05972": (
        "Generating Informative and Diverse Conversational Responses via Adversarial Information Maximization",
        "Zhang, Yizhe and Galley, Michel and Gao, Jianfeng and Gan, Zhe and Li, Xiujun and Brockett, Chris and Dolan, "
        "Bill",
    ),
    "1908.04319": (
        "Neural Text Generation with Unlikelihood Training",
        "Welleck, Sean and Kulikov, Ilia and Roller, Stephen and Dinan, Emily and Cho, Kyunghyun and Weston, Jason",
    ),
    "1908.10084": (
        "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        "Reimers, Nils and Gurevych, Iryna",
    ),
    "2009.03300": (
        "Measuring Massive Multitask Language Understanding",
        "Hendrycks, Dan and Burns, Collin and Basart, Steven and Zou, Andy and Mazeika, Mantas and Song, Dawn and "
        "Steinhardt, Jacob",
    ),
    "2012.07805": (
        "Extracting Training Data from Large Language Models",
        "Carlini, Nicholas and Tramèr, Florian and Wallace, Eric and Jagielski, Matthew and Herbert-Voss, Ariel and "
        "Lee, Katherine and Roberts, Adam and Brown, Tom and Song, Dawn and Erlingsson, Úlfar and Oprea, Alina and "
        "Raffel, Colin",
    ),
    "2106.09685": (
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and "
        "Wang, Lu and Chen, Weizhu",
    ),
    "2111.08440": (
        "On the Importance of Difficulty Calibration in Membership Inference Attacks",
        "Watson, Lauren and Guo, Chuan and Cormode, Graham and Sablayrolles, Alex",
    ),
    "2202.05262": (
        "Locating and Editing Factual Associations in GPT",
        "Meng, Kevin and Bau, David and Andonian, Alex and Belinkov, Yonatan",
    ),
    "2205.10770": (
        "Memorization Without Overfitting: Analyzing the Training Dynamics of Large Language Models",
        "Tirumala, Kushal and Markosyan, Aram H. and Zettlemoyer, Luke and Aghajanyan, Armen",
    ),
    "2212.04089": (
        "Editing Models with Task Arithmetic",
        "Ilharco, Gabriel and Ribeiro, Marco Tulio and Wortsman, Mitchell and Gururangan, Suchin and Schmidt, Ludwig "
        "and Hajishirzi, Hannaneh and Farhadi, Ali",
    ),
    "2305.18290": (
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and "
        "Finn, Chelsea",
    ),
    "2310.16789": (
        "Detecting Pretraining Data from Large Language Models",
        "Shi, Weijia and Ajith, Anirudh and Xia, Mengzhou and Huang, Yangsibo and Liu, Daogao and Blevins, Terra and "
        "Chen, Danqi and Zettlemoyer, Luke",
    ),
    "2401.06121": (
        "TOFU: A Task of Fictitious Unlearning for LLMs",
        "Maini, Pratyush and Feng, Zhili and Schwarzschild, Avi and Lipton, Zachary C. and Kolter, J. Zico",
    ),
    "2402.10052": (
        "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models",
        "Dong, Yijiang River and Lin, Hongzhou and Belkin, Mikhail and Huerta, Ramon and Vulić, Ivan",
    ),
    "2402.16835": (
        "Eight Methods to Evaluate Robust Unlearning in LLMs",
        "Lynch, Aengus and Guo, Phillip and Ewart, Aidan and Casper, Stephen and Hadfield-Menell, Dylan",
    ),
    "2402.17012": (
        "Pandora's White-Box: Precise Training Data Detection and Extraction in Large Language Models",
        "Wang, Jeffrey G. and Wang, Jason and Li, Marvin and Neel, Seth",
    ),
    "2403.03218": (
        "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
        "Li, Nathaniel and Pan, Alexander and Gopal, Anjali and Yue, Summer and Berrios, Daniel and Gatti, Alice and "
        "others",
    ),
    "2404.02936": (
        "Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models",
        "Zhang, Jingyang and Sun, Jingwei and Yeats, Eric and Ouyang, Yang and Kuo, Martin and Zhang, Jianyi and "
        "Yang, Hao Frank and Li, Hai",
    ),
    "2404.03592": (
        "ReFT: Representation Finetuning for Language Models",
        "Wu, Zhengxuan and Arora, Aryaman and Wang, Zheng and Geiger, Atticus and Jurafsky, Dan and Manning, "
        "Christopher D. and Potts, Christopher",
    ),
    "2404.05868": (
        "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        "Zhang, Ruiqi and Lin, Licong and Bai, Yu and Mei, Song",
    ),
    "2406.13356": (
        "Unlearning or Obfuscating? Jogging the Memory of Unlearned LLMs via Benign Relearning",
        "Hu, Shengyuan and Fu, Yiwei and Wu, Zhiwei Steven and Smith, Virginia",
    ),
    "2407.06460": (
        "MUSE: Machine Unlearning Six-Way Evaluation for Language Models",
        "Shi, Weijia and Lee, Jaechan and Huang, Yangsibo and Malladi, Sadhika and Zhao, Jieyu and Holtzman, Ari and "
        "Liu, Daogao and Zettlemoyer, Luke and Smith, Noah A. and Zhang, Chiyuan",
    ),
    "2409.13474": (
        "Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models",
        "Mekala, Anmol and Dorna, Vineeth and Dubey, Shreya and Lalwani, Abhishek and Koleczek, David and Rungta, "
        "Mukund and Hasan, Sadid and Lobo, Elita",
    ),
    "2410.07163": (
        "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning",
        "Fan, Chongyu and Liu, Jiancheng and Lin, Licong and Jia, Jinghan and Zhang, Ruiqi and Mei, Song and Liu, "
        "Sijia",
    ),
    "2410.16454": (
        "Catastrophic Failure of LLM Unlearning via Quantization",
        "Zhang, Zhiwei and Wang, Fali and Li, Xiaomin and Wu, Zongyu and Tang, Xianfeng and Liu, Hui and He, Qi and "
        "Yin, Wenpeng and Wang, Suhang",
    ),
    "2502.15097": (
        "LUME: LLM Unlearning with Multitask Evaluations",
        "Ramakrishna, Anil and Wan, Yixin and Jin, Xiaomeng and Chang, Kai-Wei and Bu, Zhiqi and Vinzamuri, "
        "Bhanukiran and Cevher, Volkan and Hong, Mingyi and Gupta, Rahul",
    ),
    "2502.17823": (
        "A General Framework to Enhance Fine-tuning-based LLM Unlearning",
        "Ren, Jie and Dai, Zhenwei and Tang, Xianfeng and Liu, Hui and Zeng, Jingying and Li, Zhen and Goutam, Rahul "
        "and Wang, Suhang and Xing, Yue and He, Qi",
    ),
    "2502.19301": (
        "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond",
        "Wang, Qizhou and Zhou, Jin Peng and Zhou, Zhanke and Shin, Saebyeol and Han, Bo and Weinberger, Kilian Q.",
    ),
    "2503.01224": (
        "CE-U: Cross Entropy Unlearning",
        "Yang, Bo",
    ),
    "2505.11953": (
        "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning",
        "Yang, Puning and Wang, Qizhou and Huang, Zhuo and Liu, Tongliang and Zhang, Chengqi and Han, Bo",
    ),
    "2506.05314": (
        "Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
        "Entesari, Taha and Hatami, Arman and Khaziev, Rinat and Ramakrishna, Anil and Fazlyab, Mahyar",
    ),
    "2506.12618": (
        "OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking of Methods and Metrics",
        "Dorna, Vineeth and Mekala, Anmol and Zhao, Wenlong and McCallum, Andrew and Lipton, Zachary C. and Kolter, "
        "J. Zico and Maini, Pratyush",
    ),
    "2509.02820": (
        "Unlearning That Lasts: Utility-Preserving, Robust, and Almost Irreversible Forgetting in LLMs",
        "Singh, Naman Deep and Müller, Maximilian and Croce, Francesco and Hein, Matthias",
    ),
    "2511.04934": (
        "Leak@k: Unlearning Does Not Make LLMs Forget Under Probabilistic Decoding",
        "Reisizadeh, Hadi and Ruan, Jiajun and Chen, Yiwei and Pal, Soumyadeep and Liu, Sijia and Hong, Mingyi",
    ),
    "2605.12765": (
        "Inference-Time Machine Unlearning via Gated Activation Redirection",
        "Conte Turani, Vinícius and Parraga, Otávio and Boer Abitante, João Vitor and others",
    ),
    "2605.24614": (
        "Measuring the Depth of LLM Unlearning via Activation Patching",
        "Lee, Jaeung and Kim, Dohyun and Jo, Jaemin",
    ),
}
