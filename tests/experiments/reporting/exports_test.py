"""Files of tables and figures beside a page: what is in their way is told in one line."""

import pytest

from experiments.core.errors import UserError
from experiments.reporting import exports


@pytest.mark.parametrize("name", ["tables", "figures"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"cannot make the folder .*{name} .File exists.: move what is there"):
        exports.write(tmp_path, [])
