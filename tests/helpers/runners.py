"""Every runner with its configs, for tests that hold of all."""

from experiments.comparison import run as comparison
from experiments.configs import federated as federated_configs
from experiments.configs import judge as judge_configs
from experiments.configs import judge_exact as judge_exact_configs
from experiments.configs import pretrain as pretrain_configs
from experiments.configs import readiness as comparison_configs
from experiments.configs import s3t as s3t_configs
from experiments.erasure import run as federated
from experiments.exact import run as exact
from experiments.judge import run as judge
from experiments.judge_exact import run as judge_exact
from experiments.pretrain import run as pretrain

RUNNERS = {
    "comparison": (comparison, comparison_configs),
    "judge": (judge, judge_configs),
    "pretrain": (pretrain, pretrain_configs),
    "exact": (exact, s3t_configs),
    "judge_exact": (judge_exact, judge_exact_configs),
    "federated": (federated, federated_configs),
}
