r"""Formulas of the API pages, by the name of what they say: there the docstring's line of text stands as TeX too.

Functions with an example in docs/examples have theirs there.
"""

FORMULAS = {
    # methods
    "rsepm_edu.methods.cam.cam_from_features": r"M_k(u) = w_k \cdot F(u)",
    "rsepm_edu.methods.cam.normalize_cam": (
        r"\bar{M}_k(u) = y_k\,\frac{\max(0, M_k(u))}{\max_v \max(0, M_k(v)) + \varepsilon}"
    ),
    "rsepm_edu.methods.cam.tag_loss": (
        r"L_{cls} = -\frac{1}{BK} \sum_{b,k} \left[y_{bk} \log \sigma(z_{bk}) "
        r"+ (1 - y_{bk}) \log (1 - \sigma(z_{bk}))\right]"
    ),
    "rsepm_edu.methods.puzzle.pieces": (
        r"\text{length} = \left\lceil \frac{n}{parts} \right\rceil, \qquad "
        r"\text{start}_i = \left\lfloor \frac{i\,(n - \text{length})}{parts - 1} \right\rfloor"
    ),
    "rsepm_edu.methods.puzzle.puzzle_loss": (
        r"L_{re} = \frac{1}{BKhw} \sum_{b,k,u} y_{bk} \left|M_{bk}(u) - M^{re}_{bk}(u)\right|"
    ),
    "rsepm_edu.methods.puzzle.alpha_at": (
        r"\alpha(step) = \alpha_{most} \cdot \min\left(1, \frac{2 \cdot step}{steps}\right)"
    ),
    "rsepm_edu.methods.scg.min_max": r"\bar{v} = \frac{v - \min v}{\max v - \min v + 10^{-10}}",
    "rsepm_edu.methods.scg.self_correlation": (
        r"S_{ij} = \left[\max(0, \hat{F}_i \cdot \hat{F}_j)\right]_{\geq \theta_1}, \qquad "
        r"S^1 = \text{norm}(S), \qquad "
        r"S^2 = \left[\text{norm}\left(\tilde{S}\,\tilde{S}\right)\right]_{\geq \theta_2 / hw}, \qquad "
        r"\tilde{S} = \text{norm}(S - \text{diag}\,S)"
    ),
    "rsepm_edu.methods.scg.correlated_map": r"M^{scg} = \overline{\left[\bar{S}_{pos} - \bar{S}_{neg}\right]_{+}}",
    "rsepm_edu.methods.pamr.colour_affinity": (
        r"a_{ij} = \text{softmax}_j \left(\text{mean}_c\; "
        r"\frac{-|x_{ic} - x_{jc}|}{10^{-8} + \sigma\,\sigma_{ic}}\right)"
    ),
    "rsepm_edu.methods.pamr.weighted_sum": r"m_i \leftarrow \sum_j a_{ij}\, m_{i + o_j}",
    "rsepm_edu.methods.pamr_kernels.fused_sum": r"m_i \leftarrow \sum_j a_{ij}\, m_{i + o_j}",
    "rsepm_edu.methods.recurseed.conditional_filter": (
        r"M_{seg}(u) = \begin{cases} k + 1 & \max_k M_k(u) \geq certain, \text{ of class } k \\ "
        r"0 & \max_k M_k(u) \leq uncertain \\ 255 & \text{else} \end{cases}"
    ),
    "rsepm_edu.methods.recurseed.cam_loss": (
        r"L_{rec} = \frac{\sum n\,|\bar{M} - M_{rs}|}{\max(1, \sum n)}, \qquad n_{bk}(u) = y_{bk}\, w_b(u)"
    ),
    "rsepm_edu.methods.recurseed.rec_counts": r"n_{bk}(u) = y_{bk}\, w_b(u)",
    "rsepm_edu.methods.recurseed.decoder_loss": (
        r"L_{seg} = -\frac{1}{|V|} \sum_{u \in V} \log p_{M_{seg}(u)}(u), \qquad V = \{u : M_{seg}(u) \neq 255\}"
    ),
    "rsepm_edu.methods.cutmix.cut_mix": r"y = a\,y_{picture} + (1 - a)\,y_{partner}",
    "rsepm_edu.methods.cutmix.random_rectangles": (
        r"\lambda \sim \text{Beta}(1, 1), \qquad h = H \sqrt{1 - \lambda}, \qquad w = W \sqrt{1 - \lambda}"
    ),
    "rsepm_edu.methods.saliency_grafting.saliency_grafting": (
        r"P(\text{patch } i) = \frac{s_i}{\max_j s_j}, \qquad \lambda = \frac{I}{I + I'}, \qquad "
        r"I = \frac{\sum_{grafted} s}{\sum s}, \qquad y = \lambda\,y_{picture} + (1 - \lambda)\,y_{partner}"
    ),
    "rsepm_edu.methods.edgepredictmix.edge_predict": (
        r"M_{ep}(u) = \begin{cases} CF(u) & \text{certain, and no background on an edge} \\ 255 & u \text{ on an edge} "
        r"\\ \text{mode}\{CF(v) : v \in \text{region}(u)\} & \text{else} \end{cases}"
    ),
    "rsepm_edu.methods.dense_crf.with_background": r"m_{0} = \left(1 - \max_k m_k\right)^{power}",
    "rsepm_edu.methods.dense_crf.mean_field": (
        r"Q_i \leftarrow \text{softmax}\left(\log p_i + \sum_m w_m \sum_j n_{mi}\, k_m(f_i, f_j)\, n_{mj}\, Q_j\right)"
        r", \qquad n_{mi} = \left(\sum_j k_m(f_i, f_j)\right)^{-1/2}"
    ),
    "rsepm_edu.methods.permutohedral.permutohedral_lattice": r"x = E \, \sqrt{\frac{2}{3}}\,(d + 1)\, f",
    "rsepm_edu.methods.permutohedral.Lattice.filter": (r"\sum_j \exp\left(-\frac{|f_i - f_j|^2}{2}\right) v_j"),
    "rsepm_edu.methods.random_walk.edge_affinity": r"a_{ij} = 1 - \max_{k \in \text{path}(i, j)} edge_k",
    "rsepm_edu.methods.random_walk.feature_affinity": (r"a_{ij} = \exp\left(-\text{mean}_c\, |f_{ic} - f_{jc}|\right)"),
    "rsepm_edu.methods.random_walk.affinity_loss": (
        r"L = \frac{1}{4} \text{mean}_{bg}(-\log a) + \frac{1}{4} \text{mean}_{fg}(-\log a) "
        r"+ \frac{1}{2} \text{mean}_{different}(-\log (1 - a))"
    ),
    # evaluation
    "rsepm_edu.evaluation.metrics.scores": (
        r"U = T + P - TP, \qquad IoU = \frac{TP}{U}, \qquad FP = \frac{P - TP}{U}, \qquad FN = \frac{T - TP}{U}"
    ),
    "rsepm_edu.evaluation.thresholds.labels_at": (
        r"c^* = \text{argmax}_c\, s_c(u), \qquad \text{prediction}(u) = "
        r"\begin{cases} c^* & s_{c^*}(u) > \theta \\ 0 & \text{else} \end{cases}"
    ),
    "rsepm_edu.evaluation.boundary.boundary_iou": r"\text{boundary } IoU = \frac{|G_d \cap P_d|}{|G_d \cup P_d|}",
    "rsepm_edu.evaluation.maskfree.ColourInformation": (
        r"I(\theta) = \sum_{c, f} p(c, f) \log_2 \frac{p(c, f)}{p(c)\,p(f)}, \qquad f = [s^* > \theta]"
    ),
    "rsepm_edu.evaluation.maskfree.Stability": r"\kappa(\theta) = \frac{p_o - p_e}{1 - p_e}",
    "rsepm_edu.evaluation.maskfree.ClassifierSight": (
        r"S(\theta) = p_k(\text{mask kept}) - p_k(\text{mask painted over}) - \text{area}(\theta)"
    ),
    "rsepm_edu.evaluation.maskfree.Otsu": r"\eta(\theta) = \frac{w_0\, w_1\, (\mu_1 - \mu_0)^2}{\sigma^2}",
    "rsepm_edu.evaluation.inference.multi_scale_maps": (
        r"M = \text{normalize}\left(\sum_{s} \max(0, M_s)\right), \qquad "
        r"p = \frac{1}{|S|} \sum_s \text{softmax}(z_s), \qquad p_{tag} = \frac{1}{|S|} \sum_s \sigma(t_s)"
    ),
    "rsepm_edu.evaluation.inference.segmenter_probabilities": r"p = \frac{1}{|S|} \sum_s \text{softmax}(z_s)",
    "rsepm_edu.evaluation.per_class.ClassCounts.union": r"U = T + P - TP",
}
